"""Carries out commands: the registry first, then what is in memory and who is sent where.

A bundle is kept, loaded and warmed before anything can be sent to it, and what serves is
replaced, never taken away first. A command is durable before its effect is seen, so that
a start after a crash comes to where the last acknowledged command led, or one further.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.generation import Generations, Traffic
from rankloom_adapters.rollout.registry import Registry
from rankloom_adapters.rollout.states import LOADED, Command, Ledger, Rollout, State, Verb
from rankloom_adapters.store import BundleStore

T = TypeVar("T")
MAX_REASON_CHARS = 300
_OWN = "\0"  # begins the keys of commands that nobody asked for; a caller's are printable


class NotServableError(Exception):
    """The bundle's parts are not what they should be, or do not fit; the message says which."""


_UNFIT = (NotServableError, BundleError)


@dataclass(frozen=True, slots=True, eq=False)
class Loader(Generic[T]):
    """How a bundle's folder becomes what serves, and how that is let go.

    ``load`` raises NotServableError or BundleError; ``release`` may be called on any thread.
    """

    load: Callable[[Path], Awaitable[T]]
    release: Callable[[T], object]


class RolloutManager(Generic[T]):
    """One server's generations, from their registry. Use it from one event loop.

    Commands are carried out one at a time, in the order in which they came.
    """

    def __init__(
        self,
        registry: Registry,
        store: BundleStore,
        generations: Generations[T],
        loader: Loader[T],
    ) -> None:
        self._registry, self._store = registry, store
        self._generations, self._loader = generations, loader
        self._lock = asyncio.Lock()

    @property
    def ledger(self) -> Ledger:
        """All that has happened."""
        return self._registry.ledger

    async def start(self) -> None:
        """Serves again what served last; the active generation is loaded first.

        Another one that cannot be loaded any more is rolled back, or quarantined where it
        was never warmed. Raises NotServableError or BundleError where the active one cannot.
        """
        async with self._lock:
            if self.ledger.active:
                await self._load(self.ledger.active)
                self._generations.direct(Traffic(self.ledger.active))
            for number, each in self.ledger.rollouts.items():
                if each.state is State.STAGED:
                    await self._warm(number)
                elif each.state in LOADED and number != self.ledger.active:
                    await self._load_or_roll_back(number)
            self._follow()

    async def stage(self, source: Path, expected: int, key: str) -> Rollout:
        """Keeps, loads and warms a sealed bundle; it is quarantined where that fails.

        Asked again, it goes on where an earlier try was cut short. Raises BundleError or
        StoreError where it cannot be kept, RolloutError or RegistryError; no generation
        has changed then, though the copy may be kept.
        """
        async with self._lock:
            digest = await asyncio.to_thread(self._store.put, source)
            staged = self._registry.carry_out(
                Command(Verb.STAGE, 0, expected, key, bundle_digest=digest)
            )
            if staged.state is not State.STAGED:  # asked before
                return staged
            return await self._warm(staged.generation)

    async def change(self, command: Command) -> Rollout:
        """Carries out any other command. Raises RolloutError or RegistryError."""
        async with self._lock:
            changed = self._registry.carry_out(command)
            self._follow()
            return changed

    async def _warm(self, number: int) -> Rollout:
        try:
            await self._load(number)
        except _UNFIT as error:
            return self._own(Verb.QUARANTINE, number, str(error))
        return self._own(Verb.WARM, number)

    async def _load_or_roll_back(self, number: int) -> None:
        try:
            await self._load(number)
        except _UNFIT as error:
            self._own(Verb.ROLL_BACK, number, str(error))

    async def _load(self, number: int) -> None:
        digest = self.ledger.rollout(number).bundle_digest
        self._generations.add(number, await self._loader.load(self._store.folder_of(digest)))

    def _own(self, verb: Verb, number: int, reason: str = "") -> Rollout:
        """A command of the server's own; a number goes through each of them once."""
        key = f"{_OWN}{verb.value} {number}"
        command = Command(verb, number, self.ledger.active, key, reason=reason[:MAX_REASON_CHARS])
        return self._registry.carry_out(command)

    def _follow(self) -> None:
        """Sends requests where the ledger says, and lets go of what it no longer holds."""
        self._generations.direct(traffic_of(self.ledger))
        for number in self._generations.serving:
            if self.ledger.rollout(number).state not in LOADED:
                self._generations.retire(number, self._loader.release)


def traffic_of(ledger: Ledger) -> Traffic:
    """Who is sent where; a shadow is sent nobody."""
    traffic, trial = Traffic(ledger.active), ledger.rollouts.get(ledger.on_trial)
    if trial is None or trial.state is not State.CANARY:
        return traffic
    return replace(
        traffic, canary=trial.generation, percent=trial.percent, salt=trial.bundle_digest
    )
