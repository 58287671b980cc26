"""How revisions come into a server: one bundle for good, or as a registry has it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.revision import Revisions, Traffic
from rankloom_adapters.rollout.manager import (
    Loader,
    NoRoomError,
    NotServableError,
    RolloutManager,
)
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
from rankloom_server.config import Settings
from rankloom_server.errors import StartError
from rankloom_server.integrity import Integrity
from rankloom_server.revision_loader import RevisionLoader, ServedRevision
from rankloom_server.staging import Staging
from rankloom_server.state import ServerState
from rankloom_server.trials import Observer, Trials

FIRST = 1  # the revision of the bundle that a server is started with
_UNSERVABLE = (BundleError, NotServableError, NoRoomError)


class Deployment(ABC):
    """The revisions of one server."""

    def __init__(self) -> None:
        self.facts: dict[str, object] = {}
        self.observer: Observer | None = None

    @abstractmethod
    async def begin(self, bundle: Path) -> None:
        """Loads what the server is to serve at first. Raises StartError."""

    @abstractmethod
    async def close(self) -> None:
        """Lets what has begun come to its end."""


class StaticDeployment(Deployment):
    """One bundle, as long as the process runs."""

    def __init__(self, loader: RevisionLoader, revisions: Revisions[ServedRevision]) -> None:
        super().__init__()
        self._loader, self._revisions = loader, revisions

    async def begin(self, bundle: Path) -> None:
        """Loads the bundle."""
        try:
            served = await self._loader.load(bundle)
        except _UNSERVABLE as error:
            raise StartError(str(error)) from error
        self._revisions.add(FIRST, served)
        self._revisions.direct(Traffic(FIRST))
        self.facts.update(bundle_digest=served.loaded.digest, revision=FIRST)

    async def close(self) -> None:
        """Nothing has."""


class ManagedDeployment(Deployment):
    """Revisions that are staged, tried, promoted and rolled back while the server runs."""

    def __init__(
        self,
        state: ServerState,
        loader: RevisionLoader,
        revisions: Revisions[ServedRevision],
        settings: Settings,
    ) -> None:
        """Raises ConfigError."""
        super().__init__()
        self.revisions, self.loader = revisions, loader
        self._judges = ThreadPoolExecutor(1, "rankloom-judge")
        self.manager = RolloutManager(
            state.registry,
            state.store,
            revisions,
            Loader(loader.load, loader.release),
            settings.retire_s,
            files=loader.files,
            judges=self._judges,
        )
        self.staging = Staging(state, loader, settings.max_bundle_mib << 20)
        self._trials = Trials(self.manager, revisions)
        self._integrity = Integrity(loader, state.store)
        self._checking: asyncio.Task[None] | None = None
        self._resuming: asyncio.Task[None] | None = None
        self.observer = self._trials

    async def begin(self, bundle: Path) -> None:
        """Serves what served last; ``bundle`` becomes active where nothing has served yet."""
        try:
            await self.manager.start()
            if not self.manager.ledger.active:
                await self._begin_with(bundle)
        except (*_UNSERVABLE, RegistryError, StoreError, RolloutError) as error:
            raise StartError(str(error)) from error
        self._resuming = asyncio.create_task(self._resume())
        self._checking = asyncio.create_task(self._integrity.run())
        active = self.manager.ledger.rollout(self.manager.ledger.active)
        self.facts.update(bundle_digest=active.bundle_digest, revision=active.revision)

    async def stage(
        self, made: AbstractAsyncContextManager[Path], expected: int, key: str, origin: str
    ) -> Rollout:
        """Stages what ``made`` makes, unless that was done under this key.

        Raises what the source raises, StoreError, RolloutError, RegistryError or NoRoomError.
        """
        before = self.manager.staged_before(expected, key, origin)
        if before is not None:
            return before
        async with made as folder:
            return await self.manager.stage(folder, expected, key, origin)

    async def change(self, command: RolloutCommand) -> Rollout:
        """Carries out any other command. Raises RolloutError or RegistryError."""
        return await self.manager.change(command)

    @property
    def expert_bytes(self) -> int:
        """Memory of the experts' slots."""
        return self.loader.pool.expert_bytes

    def trial_of(self, revision: int) -> Trial | None:
        """The revision's trial, while it runs."""
        trial = self.manager.trial
        return trial if trial and trial.revision == revision else None

    async def changed(self, timeout_s: float) -> None:
        """Returns after the next change, or after that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.manager.changed.wait()

    async def close(self) -> None:
        """Waits for the commands that have begun."""
        if self._checking is not None:
            self._checking.cancel()
        if self._resuming is not None:
            await self._resuming
        await self._trials.close()
        await self.manager.close()
        self._judges.shutdown()

    async def _resume(self) -> None:
        try:
            await self.manager.resume()
        except Exception as error:
            logs.fault("resuming_failed", error)

    async def _begin_with(self, bundle: Path) -> None:
        attempt = f"first {self.manager.ledger.newest}"
        staged = await self.manager.stage(bundle, 0, f"{attempt} stage", str(bundle))
        if staged.state is RolloutState.QUARANTINED:
            raise StartError(f"{bundle}: {staged.reason}")
        number = staged.revision
        await self.manager.change(RolloutCommand(Verb.PROMOTE, number, 0, f"{attempt} promote"))
