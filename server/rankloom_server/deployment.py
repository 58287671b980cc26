"""Which revisions a server runs: one bundle for good, or those of a registry."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Protocol

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.revision import Revisions, Traffic
from rankloom_adapters.rollout.loaded import Loader, NoRoomError, NotServableError
from rankloom_adapters.rollout.manager import RolloutManager
from rankloom_adapters.rollout.registry import RegistryError
from rankloom_adapters.rollout.states import (
    Rollout,
    RolloutCommand,
    RolloutError,
    RolloutState,
    Verb,
)
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.store import StoreError
from rankloom_server import logs
from rankloom_server.errors import StartError
from rankloom_server.integrity import Integrity
from rankloom_server.revision_loader import RevisionLoader, ServedRevision
from rankloom_server.rpc.lifecycle import Facts
from rankloom_server.staging import Staging
from rankloom_server.state import ServerState
from rankloom_server.trials import Observer, Trials

FIRST = 1  # the revision of the bundle that a server is started with
_UNSERVABLE = (BundleError, NotServableError, NoRoomError)


class Deployment(Protocol):
    """The revisions of one server."""

    @property
    def observer(self) -> Observer | None:
        """Is notified of every ranking."""
        ...

    async def begin(self, bundle: Path) -> Facts:
        """Loads what the server serves first, and says what that is. Raises StartError."""
        ...

    async def close(self) -> None:
        """Waits for what has begun."""
        ...


class StaticDeployment:
    """One bundle, as long as the process runs."""

    observer: Observer | None = None

    def __init__(self, loader: RevisionLoader, revisions: Revisions[ServedRevision]) -> None:
        self._loader, self._revisions = loader, revisions

    async def begin(self, bundle: Path) -> Facts:
        """Loads the bundle. Raises StartError."""
        try:
            served = await self._loader.load(bundle)
        except _UNSERVABLE as error:
            raise StartError(f"{bundle}: {error}") from error
        self._revisions.add(FIRST, served)
        self._revisions.direct(Traffic(FIRST))
        return {"bundle_digest": served.loaded.digest, "revision": FIRST}

    async def close(self) -> None:
        pass


class ManagedDeployment:
    """Revisions that are staged, tried, promoted and rolled back while the server runs."""

    def __init__(
        self,
        state: ServerState,
        loader: RevisionLoader,
        revisions: Revisions[ServedRevision],
        *,
        retire_s: float,
        max_bundle_bytes: int,
    ) -> None:
        """Raises ConfigError."""
        self._revisions, self._loader = revisions, loader
        self._judges = ThreadPoolExecutor(1, "rankloom-judge")
        self._manager = RolloutManager(
            state.registry,
            state.store,
            revisions,
            Loader(loader.load, loader.release),
            retire_s,
            files=loader.files,
            judges=self._judges,
        )
        self.staging = Staging(state, loader, max_bundle_bytes)
        self.observer = Trials(self._manager, revisions)
        self._integrity = Integrity(loader, state.store)
        self._checking: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None

    async def begin(self, bundle: Path) -> Facts:
        """Serves the active revision; ``bundle`` becomes it where there is none yet.

        Raises StartError.
        """
        try:
            if self.active:
                await self._begin_again()
            else:
                await self._begin_with(bundle)
        except (*_UNSERVABLE, RegistryError, StoreError, RolloutError) as error:
            raise StartError(str(error)) from error
        self._resuming = asyncio.create_task(self._resume())
        self._checking = asyncio.create_task(self._integrity.run())
        active = self.rollout(self.active)
        facts = {"bundle_digest": active.bundle_digest, "revision": active.revision}
        with suppress(ValueError):  # what is no bundle is not served either
            if self._loader.open(bundle).digest == active.bundle_digest:
                return facts
        return {**facts, "reason": "the state says what is served, not the bundle; stage that"}

    async def stage(
        self, made: AbstractAsyncContextManager[Path], expected: int, key: str, origin: str
    ) -> Rollout:
        """Stages the folder that ``made`` opens, unless this key has staged one before.

        Raises what the source raises, StoreError, RolloutError, RegistryError or NoRoomError.
        """
        before = self._manager.staged_before(expected, key, origin)
        if before is not None:
            return before
        async with made as folder:
            return await self._manager.stage(folder, expected, key, origin)

    async def change(self, command: RolloutCommand) -> Rollout:
        """Carries out any other command. Raises RolloutError or RegistryError."""
        return await self._manager.change(command)

    @property
    def active(self) -> int:
        """The revision that answers all that no canary takes; 0 for none."""
        return self._manager.ledger.active

    @property
    def rollouts(self) -> tuple[Rollout, ...]:
        """All revisions, by number."""
        return tuple(rollout for _, rollout in sorted(self._manager.ledger.rollouts.items()))

    def rollout(self, revision: int) -> Rollout:
        """One revision. Raises UnknownRolloutError."""
        return self._manager.ledger.rollout(revision)

    def num_leases(self, revision: int) -> int:
        """Requests that the revision is answering."""
        return self._revisions.num_leases(revision)

    def is_loaded(self, revision: int) -> bool:
        """Whether the revision is in memory."""
        return revision in self._revisions.numbers

    @property
    def expert_bytes(self) -> int:
        """Memory of the experts' slots."""
        return self._loader.pool.expert_bytes

    def trial_of(self, revision: int) -> Trial | None:
        """The revision's trial, while it runs."""
        trial = self._manager.trial
        return trial if trial and trial.revision == revision else None

    async def changed(self, timeout_s: float) -> None:
        """Returns after the next change, or after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._manager.changed.wait()

    async def close(self) -> None:
        """Waits for the commands that have begun."""
        if self._checking is not None:
            self._checking.cancel()
        if self._resuming is not None:
            await self._resuming
        await self.observer.close()
        await self._manager.close()
        self._judges.shutdown()

    async def _resume(self) -> None:
        try:
            await self._manager.resume()
        except Exception as error:
            logs.fault("resuming_failed", error)

    async def _begin_again(self) -> None:
        try:
            await self._manager.start()
        except _UNSERVABLE as error:
            raise StartError(f"the active revision {self.active}: {error}") from error

    async def _begin_with(self, bundle: Path) -> None:
        """Stages and promotes the bundle; each try of a start has keys of its own."""
        await self._loader.read(self._loader.open, bundle)  # what is not signed is not kept
        await self._manager.start()
        attempt = f"first {self._manager.ledger.newest}"
        staged = await self._manager.stage(bundle, 0, f"{attempt} stage", str(bundle))
        if staged.state is RolloutState.QUARANTINED:
            raise StartError(f"{bundle}: {staged.reason}")
        number = staged.revision
        await self._manager.change(RolloutCommand(Verb.PROMOTE, number, 0, f"{attempt} promote"))
