"""Revisions in memory: loads them, sends requests to them and releases them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.revision import Revisions, Traffic
from rankloom_adapters.rollout.states import LOADED, Ledger, Rollout, RolloutState
from rankloom_adapters.store import BundleStore

T = TypeVar("T")


class NotServableError(Exception):
    """The bundle's parts are invalid or do not fit together; the message says which."""


class NoRoomError(Exception):
    """The bundle's experts do not fit into memory until another revision has been retired."""


UNFIT = (NotServableError, BundleError)


@dataclass(frozen=True, slots=True, eq=False)
class Loader(Generic[T]):
    """Loads a bundle's folder into a value that can serve, and releases the value.

    ``load`` raises NotServableError or BundleError for a bad bundle, and NoRoomError.
    ``release`` is called once the last lease has been returned.
    """

    load: Callable[[Path], Awaitable[T]]
    release: Callable[[T], object]


class LoadedRevisions(Generic[T]):
    """The revisions in memory, made to agree with the ledger.

    Use it from the event loop. It has no lock: `follow` and `direct` do not wait.
    """

    def __init__(
        self, revisions: Revisions[T], loader: Loader[T], store: BundleStore, retire_s: float
    ) -> None:
        self._revisions, self._loader = revisions, loader
        self._store, self._retire_s = store, retire_s

    @property
    def serving(self) -> tuple[int, ...]:
        """The revisions that take new requests."""
        return self._revisions.serving

    async def load(self, rollout: Rollout) -> T:
        """Raises NotServableError, BundleError or NoRoomError."""
        return await self._loader.load(self._store.folder_of(rollout.bundle_digest))

    def add(self, number: int, value: T) -> None:
        """Makes a revision available for leases; traffic does not go there yet."""
        self._revisions.add(number, value)

    def discard(self, value: T) -> None:
        """Releases a value that was never added."""
        self._loader.release(value)

    def retire(self, number: int) -> None:
        """Ends new leases; the value is released with the last one."""
        self._revisions.retire(number, self._loader.release)

    def direct(self, traffic: Traffic) -> None:
        """Sends new requests there, at once."""
        self._revisions.direct(traffic)

    def follow(self, ledger: Ledger, traffic: Traffic) -> None:
        """Sends new requests there and releases what the ledger no longer keeps loaded.

        A revision that was rolled back stays available for a while to requests that name it:
        the users that it ranked for may still ask for an explanation.
        """
        self.direct(traffic)
        loop = asyncio.get_running_loop()
        for number in self.serving:
            state = ledger.rollout(number).state
            if state is RolloutState.ROLLED_BACK:
                loop.call_later(self._retire_s, self._retire_and_revoke, number)
            elif state not in LOADED:
                self._retire_and_revoke(number)

    def _retire_and_revoke(self, number: int) -> None:
        """Retires a revision now; requests that still use it later are asked to end."""
        if number in self.serving:
            self.retire(number)
            loop = asyncio.get_running_loop()
            loop.call_later(self._retire_s, self._revisions.revoke, number)
