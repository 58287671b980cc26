"""Stages bundles: keeps, loads and warms them, and removes those that are needed no more."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from rankloom_adapters.rollout.loaded import UNFIT, LoadedRevisions
from rankloom_adapters.rollout.recovery import Recovery
from rankloom_adapters.rollout.states import (
    KeyReusedError,
    Rollout,
    RolloutCommand,
    RolloutState,
    Verb,
)
from rankloom_adapters.rollout.writer import LedgerWriter
from rankloom_adapters.store import BundleStore, StoreError

T = TypeVar("T")


class RolloutStaging(Generic[T]):
    """Stages one bundle at a time. It owns the lock of the store.

    That lock is taken before the writer's, never after it.
    """

    def __init__(
        self,
        store: BundleStore,
        writer: LedgerWriter,
        loaded: LoadedRevisions[T],
        recovery: Recovery[T],
        files: Executor | None = None,
    ) -> None:
        """``files``: where bundles are copied and removed; None for the loop's own executor."""
        self._store, self._writer = store, writer
        self._loaded, self._recovery = loaded, recovery
        self._files = files
        self._lock = asyncio.Lock()

    def staged_before(self, expected: int, key: str, origin: str) -> Rollout | None:
        """The result of an earlier staging under this key. Raises KeyReusedError.

        None where there was none, or where it was cut short and has to be asked for again.
        """
        known = self._writer.ledger.commands.get(key)
        if known is None:
            return None
        command, number = known
        if (command.verb, command.expected, command.origin) != (Verb.STAGE, expected, origin):
            raise KeyReusedError("the idempotency key was used for another command")
        found = self._writer.ledger.rollout(number)
        return None if found.state is RolloutState.STAGED else found

    async def stage(self, source: Path, expected: int, key: str, origin: str) -> Rollout:
        """As `RolloutManager.stage` says."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            digest = await loop.run_in_executor(self._files, self._store.put, source)
            command = RolloutCommand(
                Verb.STAGE, 0, expected, key, bundle_digest=digest, origin=origin
            )
            async with self._writer.lock:
                staged = await self._writer.carry_out(command)
            if staged.state is not RolloutState.STAGED:  # an earlier call has done it
                return staged
            await self._recovery.wait_for_all()  # what was loaded before gets its room first
            warmed = await self._warm(staged.revision)
            await self._prune()  # a revision may have been retired meanwhile
            return warmed

    async def prune(self) -> None:
        """Removes bundles that only retired revisions had, and what a cut staging left.

        No other: a bundle that this ledger never knew may be one of a ledger that was lost.
        """
        async with self._lock:
            await self._prune()

    async def prune_unless_staging(self) -> None:
        """The same, except during a staging, which prunes at its end."""
        if not self._lock.locked():
            await self.prune()

    async def _prune(self) -> None:
        """A failure leaves a bundle for the next time.

        Needs the lock: a bundle that is being staged is kept before the ledger names it.
        """
        rollouts = self._writer.ledger.rollouts.values()
        retired = {each.bundle_digest for each in rollouts if each.state is RolloutState.RETIRED}
        needed = {each.bundle_digest for each in rollouts if each.state is not RolloutState.RETIRED}
        loop = asyncio.get_running_loop()
        with suppress(StoreError):
            unknown = self._store.unknown
            for digest in (self._store.digests & (retired | unknown)) - needed:
                await loop.run_in_executor(self._files, self._store.remove, digest)
            for digest in unknown:
                await loop.run_in_executor(self._files, self._store.known, digest)

    async def _warm(self, number: int) -> Rollout:
        """Loads a staged revision while other commands go on; one of them may retire it."""
        try:
            value = await self._loaded.load(self._writer.ledger.rollout(number))
        except UNFIT as error:
            async with self._writer.lock:
                if (found := self._writer.ledger.rollout(number)).state is not RolloutState.STAGED:
                    return found
                return await self._writer.carry_out_own(Verb.QUARANTINE, number, str(error))
        async with self._writer.lock:
            if (found := self._writer.ledger.rollout(number)).state is not RolloutState.STAGED:
                self._loaded.discard(value)
                return found
            self._loaded.add(number, value)
            try:
                return await self._writer.carry_out_own(Verb.WARM, number)
            except BaseException:
                self._loaded.retire(number)
                raise
