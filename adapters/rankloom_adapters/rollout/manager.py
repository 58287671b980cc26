"""Carries out commands: first in the registry, then in memory and in where requests go.

A bundle is kept, loaded and warmed before requests can go to it, and the serving revision is
replaced, never removed first. A command is durable before its effect is visible, so that a
start after a crash leads to where the last acknowledged command led, or one further. Such a
start serves as soon as the revisions with traffic are loaded; the others follow.

Each lock has one owner: `RolloutStaging` that of the store, `LedgerWriter` that of registry
and traffic (taken after the store's, where both are), `CurrentTrial` that of checks (taken
alone).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from pathlib import Path
from typing import Generic, TypeVar

from rankloom_adapters.revision import Revisions
from rankloom_adapters.rollout.current_trial import CurrentTrial, GatesNotPassedError
from rankloom_adapters.rollout.judge import Judgement, TrialVerdict
from rankloom_adapters.rollout.loaded import LoadedRevisions, Loader
from rankloom_adapters.rollout.recovery import Recovery
from rankloom_adapters.rollout.registry import Registry
from rankloom_adapters.rollout.staging import RolloutStaging
from rankloom_adapters.rollout.states import (
    Ledger,
    Rollout,
    RolloutCommand,
    TransitionError,
    Verb,
    after,
)
from rankloom_adapters.rollout.traffic import needed_by
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.rollout.writer import LedgerWriter
from rankloom_adapters.store import BundleStore

T = TypeVar("T")


class RolloutManager(Generic[T]):
    """The revisions of one server. Use it from one event loop.

    A caller that leaves does not stop its command, so that nothing is left half done.
    """

    def __init__(
        self,
        registry: Registry,
        store: BundleStore,
        revisions: Revisions[T],
        loader: Loader[T],
        retire_s: float = 60.0,
        files: Executor | None = None,
        judges: Executor | None = None,
    ) -> None:
        """``retire_s``: how long a request may go on with a retired revision, and how long a
        revision that was rolled back stays available to requests that name it.

        ``files``: reads and writes bundles. ``judges``: judges evidence, so that this does not
        wait for files. None for either: the loop's own executor.
        """
        self._current = CurrentTrial(judges)
        self._writer = LedgerWriter(registry, self._current)
        self._loaded = LoadedRevisions(revisions, loader, store, retire_s)
        self._recovery = Recovery(self._writer, self._loaded)
        self._staging = RolloutStaging(store, self._writer, self._loaded, self._recovery, files)
        self._running: set[asyncio.Task[Rollout]] = set()

    @property
    def ledger(self) -> Ledger:
        """All that has happened."""
        return self._writer.ledger

    @property
    def trial(self) -> Trial | None:
        """The trial that runs now."""
        return self._current.trial

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change of the ledger; ask for a new one after each."""
        return self._writer.changed

    async def start(self) -> None:
        """Serves again what served last; loads only the revisions that requests go to.

        A canary that cannot be loaded any more is rolled back. Raises NotServableError or
        BundleError where the active revision cannot.
        """
        await self._recovery.load_serving()
        self._follow()
        self._current.follow(self.ledger)
        self._recovery.expect_rest()

    async def resume(self) -> None:
        """Loads the other revisions that were loaded before the start.

        Meanwhile commands go on, except those that need one of them. A revision that cannot be
        loaded any more is rolled back. One whose staging was cut short stays staged until it
        is asked for again: had it ended the process, each start would end the same way.
        Raises RegistryError; what was not loaded then cannot be promoted.
        """
        await self._recovery.load_rest()
        await self._staging.prune()

    def staged_before(self, expected: int, key: str, origin: str) -> Rollout | None:
        """The result of an earlier staging under this key. Raises KeyReusedError.

        None where there was none, or where it was cut short and has to be asked for again.
        """
        return self._staging.staged_before(expected, key, origin)

    async def stage(self, source: Path, expected: int, key: str, origin: str = "") -> Rollout:
        """Keeps, loads and warms a sealed bundle; quarantines it where that fails.

        ``origin``: where the bundle comes from, for the record. A repeated call continues a
        staging that was cut short. Raises BundleError or StoreError where the bundle cannot be
        kept, RolloutError or RegistryError; no revision has changed then, though the copy may
        be kept.
        """
        return await self._to_its_end(self._staging.stage(source, expected, key, origin))

    async def change(self, command: RolloutCommand) -> Rollout:
        """Carries out any other command. Raises RolloutError or RegistryError."""
        return await self._to_its_end(self._change(command))

    async def judge(self) -> Judgement | None:
        """Checks the trial if a check is due, and rolls a breach back; else None."""
        return await self._judge(lambda trial: trial.is_due)

    async def close(self) -> None:
        """Waits for the commands that have begun."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _to_its_end(self, work: Coroutine[object, object, Rollout]) -> Rollout:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Rollout]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen, in case the caller has left

    async def _change(self, command: RolloutCommand) -> Rollout:
        await self._recovery.wait_for(needed_by(self.ledger, command))
        if command.verb is Verb.PROMOTE:
            await self._judge_before_promotion(command)
        async with self._writer.lock:
            after(self.ledger, command)  # other errors come before those of the gates
            if self.ledger.done(command) is None:
                self._check_loaded(command)
                if self._needs_gates(command):
                    self._current.require_pass(command.revision)
            changed = await self._writer.carry_out(command)
            self._follow()
        if command.verb is Verb.RETIRE:
            await self._staging.prune_unless_staging()
        return changed

    def _check_loaded(self, command: RolloutCommand) -> None:
        """Raises TransitionError unless the revision that gets requests is loaded."""
        needed = needed_by(self.ledger, command)
        if needed and needed not in self._loaded.serving:
            raise TransitionError(
                f"revision {needed} is not loaded since the server was started: see its log"
            )

    def _needs_gates(self, command: RolloutCommand) -> bool:
        is_promotion = command.verb is Verb.PROMOTE and not command.forced
        return is_promotion and bool(self.ledger.active)

    async def _judge_before_promotion(self, command: RolloutCommand) -> None:
        """Judges the evidence that no check has seen yet. Raises GatesNotPassedError."""
        is_stale = command.expected != self.ledger.active  # refused anyway, without a check
        if is_stale or self.ledger.done(command) or not self._needs_gates(command):
            return
        judgement = await self._judge(
            lambda trial: trial.revision == command.revision and trial.is_unjudged
        )
        if judgement is not None and judgement.verdict is TrialVerdict.BREACH:
            raise GatesNotPassedError(f"it was rolled back: {judgement.reason}")

    async def _judge(self, when: Callable[[Trial], bool]) -> Judgement | None:
        checked = await self._current.check(when)
        if checked is None:
            return None
        trial, judgement = checked
        if judgement.verdict is TrialVerdict.BREACH and trial is self.trial:
            # Traffic stops at once, even if the registry cannot be written or is busy.
            self._loaded.direct(self._current.traffic(self.ledger))
            await self._to_its_end(self._roll_back(trial, judgement.reason))
        return judgement

    async def _roll_back(self, trial: Trial, reason: str) -> Rollout:
        async with self._writer.lock:
            if trial is not self.trial:  # an operator was faster
                return self.ledger.rollout(trial.revision)
            rolled_back = await self._writer.carry_out_own(Verb.ROLL_BACK, trial.revision, reason)
            self._follow()
            return rolled_back

    def _follow(self) -> None:
        self._loaded.follow(self.ledger, self._current.traffic(self.ledger))
