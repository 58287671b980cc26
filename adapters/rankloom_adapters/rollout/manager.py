"""Carries out commands: the registry first, then what is in memory and who is sent where.

A bundle is kept, loaded and warmed before anything can be sent to it, and what serves is
replaced, never taken away first. A command is durable before its effect is seen, so that
a start after a crash comes to where the last acknowledged command led, or one further. Such a
start serves as soon as what requests are sent to is loaded; the rest follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.revision import Revisions, Traffic
from rankloom_adapters.rollout.judge import Judgement, TrialVerdict
from rankloom_adapters.rollout.registry import Registry
from rankloom_adapters.rollout.states import (
    LOADED,
    KeyReusedError,
    Ledger,
    Rollout,
    RolloutCommand,
    RolloutError,
    RolloutState,
    TransitionError,
    Verb,
    after,
)
from rankloom_adapters.rollout.traffic import needed_by, traffic_of, unloaded
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.store import BundleStore, StoreError

T = TypeVar("T")
U = TypeVar("U")
MAX_REASON_CHARS = 300
_OWN = "\0"  # begins the keys of commands that nobody asked for; a caller's are printable


class NotServableError(Exception):
    """The bundle's parts are not what they should be, or do not fit; the message says which."""


class NoRoomError(Exception):
    """There is no room for the bundle's experts now; there is once another has been retired."""


class GatesNotPassedError(RolloutError):
    """A promotion is refused: too little was seen, or what was seen is not good enough."""


_UNFIT = (NotServableError, BundleError)


@dataclass(frozen=True, slots=True, eq=False)
class Loader(Generic[T]):
    """How a bundle's folder becomes what serves, and how that is let go.

    ``load`` raises NotServableError or BundleError where the bundle is wrong, NoRoomError;
    ``release`` is called where the last lease is given back.
    """

    load: Callable[[Path], Awaitable[T]]
    release: Callable[[T], object]


class RolloutManager(Generic[T]):
    """One server's revisions, from their registry. Use it from one event loop.

    Commands are carried out one at a time, in the order in which they came, and to their
    end, also where the caller has left: what is written takes effect. Only copying, loading and
    judging go on beside others: rolling back waits for no bundle but the one that it leads to.
    The disk is waited for on another thread.
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
        """``retire_s``: how long a request may go on with a revision that was let go, and how
        long one that was rolled back is kept for those who name it.

        ``files``: where bundles are read and written; registry rows are not, since somebody waits
        for them. ``judges``: where evidence is judged, which waits for no file.
        """
        self._files, self._judges = files, judges
        self._retire_s = retire_s
        self._registry, self._store = registry, store
        self._revisions, self._loader = revisions, loader
        self._lock = asyncio.Lock()  # of registry and traffic
        self._staging = asyncio.Lock()  # of the store; taken before the other, never after it
        self._judging = asyncio.Lock()  # of the trial; taken before the first, never after it
        self._running: set[asyncio.Task[Rollout]] = set()
        self.trial: Trial | None = None
        self._terms: tuple[object, ...] | None = None
        self.changed = asyncio.Event()
        self._coming: dict[int, asyncio.Event] = {}  # by revision: set once it may be loaded

    @property
    def ledger(self) -> Ledger:
        """All that has happened."""
        return self._registry.ledger

    async def start(self) -> None:
        """Serves again what served last: loads what requests are sent to, and nothing else.

        A canary that cannot be loaded any more is rolled back. Raises NotServableError or
        BundleError where the active revision cannot.
        """
        if self.ledger.active:
            active = await self._loaded(self.ledger.active)
            self._revisions.add(self.ledger.active, active)
            self._revisions.direct(Traffic(self.ledger.active))
        trial = self.ledger.rollouts.get(self.ledger.on_trial)
        if trial and trial.state is RolloutState.CANARY:
            await self._load_again(trial.revision)
        self._follow()
        self._try(self.ledger.rollouts.get(self.ledger.on_trial))
        missing = unloaded(self.ledger, self._revisions.serving)
        self._coming = {number: asyncio.Event() for number in missing}

    async def resume(self) -> None:
        """Loads what else was loaded before the start; commands go on, but for those that need it.

        What cannot be loaded any more is rolled back. One whose staging was cut short stays
        staged, to be asked for again: were it what ended the process, each start would end so.
        Raises RegistryError; what was not loaded then cannot be promoted.
        """
        try:
            for number, has_come in self._coming.items():
                await self._load_again(number)
                has_come.set()
        finally:
            for has_come in self._coming.values():
                has_come.set()
        async with self._staging:
            await self._prune()

    def staged_before(self, expected: int, key: str, origin: str) -> Rollout | None:
        """What a staging under this key has come to. Raises KeyReusedError.

        None where there was none, or where it was cut short: it is to be asked for again.
        """
        known = self.ledger.commands.get(key)
        if known is None:
            return None
        command, number = known
        if (command.verb, command.expected, command.origin) != (Verb.STAGE, expected, origin):
            raise KeyReusedError("the idempotency key was used for another command")
        found = self.ledger.rollout(number)
        return None if found.state is RolloutState.STAGED else found

    async def stage(self, source: Path, expected: int, key: str, origin: str = "") -> Rollout:
        """Keeps, loads and warms a sealed bundle; it is quarantined where that fails.

        ``origin``: where it comes from, for the record.

        Asked again, it goes on where an earlier try was cut short. Raises BundleError or
        StoreError where it cannot be kept, RolloutError or RegistryError; no revision
        has changed then, though the copy may be kept.
        """
        return await self._to_its_end(self._stage(source, expected, key, origin))

    async def change(self, command: RolloutCommand) -> Rollout:
        """Carries out any other command. Raises RolloutError or RegistryError."""
        return await self._to_its_end(self._change(command))

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
            task.exception()  # where the caller has left, nobody else asks for it

    async def _stage(self, source: Path, expected: int, key: str, origin: str) -> Rollout:
        async with self._staging:
            digest = await self._beside(self._store.put, source)
            command = RolloutCommand(
                Verb.STAGE, 0, expected, key, bundle_digest=digest, origin=origin
            )
            async with self._lock:
                staged = await self._write(command)
            if staged.state is not RolloutState.STAGED:  # asked before
                return staged
            for has_come in self._coming.values():  # what was there before has its room first
                await has_come.wait()
            warmed = await self._warm(staged.revision)
            await self._prune()  # of what was retired meanwhile
            return warmed

    async def _change(self, command: RolloutCommand) -> Rollout:
        if (needed := needed_by(self.ledger, command)) in self._coming:
            await self._coming[needed].wait()
        if command.verb is Verb.PROMOTE:
            await self._judge_for(command)
        async with self._lock:
            after(self.ledger, command)  # what is wrong anyway is said before the gates are asked
            if self.ledger.done(command) is None:
                self._check_loaded(command)
                if command.verb is Verb.PROMOTE:
                    self._check_gates(command)
            changed = await self._write(command)
            self._follow()
        if command.verb is Verb.RETIRE and not self._staging.locked():
            async with self._staging:
                await self._prune()
        return changed

    async def _prune(self) -> None:
        """Removes bundles that only retired revisions had; a failure leaves them for later.

        Under the lock of the store: what is being staged is kept before it is in the ledger.
        """
        rollouts = self.ledger.rollouts.values()
        needed = {each.bundle_digest for each in rollouts if each.state is not RolloutState.RETIRED}
        with suppress(StoreError):
            for digest in self._store.digests - needed:
                await self._beside(self._store.remove, digest)

    def _check_loaded(self, command: RolloutCommand) -> None:
        """Raises TransitionError: where requests would go, something must be loaded."""
        needed = needed_by(self.ledger, command)
        if needed and needed not in self._revisions.serving:
            raise TransitionError(
                f"revision {needed} is not loaded since the server was started: see its log"
            )

    async def _judge_for(self, command: RolloutCommand) -> None:
        """Lets the gates see all there is before a promotion. Raises GatesNotPassedError."""
        is_stale = command.expected != self.ledger.active  # refused anyway: it costs no check
        if is_stale or self.ledger.done(command) or not self._asks_gates(command):
            return
        judgement = await self._judge(
            lambda trial: trial.revision == command.revision and trial.is_unjudged
        )
        if judgement is not None and judgement.verdict is TrialVerdict.BREACH:
            raise GatesNotPassedError(f"it was rolled back: {judgement.reason}")

    def _asks_gates(self, command: RolloutCommand) -> bool:
        return not command.forced and bool(self.ledger.active)

    def _check_gates(self, command: RolloutCommand) -> None:
        """Raises GatesNotPassedError; nothing that was not tried is promoted, unless forced."""
        if not self._asks_gates(command):
            return
        trial = self.trial if self.trial and self.trial.revision == command.revision else None
        if trial is None:
            raise GatesNotPassedError(
                f"revision {command.revision} has not been tried: start a shadow or a canary, "
                "or promote without gates and say why"
            )
        if trial.judgement.verdict is not TrialVerdict.PASS:
            raise GatesNotPassedError(f"no gate lets it pass: {trial.judgement.reason}")

    async def judge(self) -> Judgement | None:
        """Checks the trial if that is due, and rolls a breach back; None where it is not."""
        return await self._judge(lambda trial: trial.is_due)

    async def _judge(self, when: Callable[[Trial], bool]) -> Judgement | None:
        async with self._judging:
            trial = self.trial
            if trial is None or not when(trial):
                return None
            loop = asyncio.get_running_loop()
            judgement = await loop.run_in_executor(self._judges, trial.check())
            trial.take(judgement)
        if judgement.verdict is TrialVerdict.BREACH and trial is self.trial:
            # At once: a command that is being carried out may take long, or the disk be full.
            self._revisions.direct(self._traffic())
            await self._to_its_end(self._roll_back(trial, judgement.reason))
        return judgement

    async def _roll_back(self, trial: Trial, reason: str) -> Rollout:
        async with self._lock:
            found = self.ledger.rollout(trial.revision)
            if trial is not self.trial:  # an operator was faster
                return found
            rolled_back = await self._own(Verb.ROLL_BACK, trial.revision, reason)
            self._follow()
            return rolled_back

    async def _beside(self, function: Callable[..., U], *arguments: object) -> U:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._files, function, *arguments)

    async def _write(self, command: RolloutCommand) -> Rollout:
        found = await asyncio.to_thread(self._registry.carry_out, command)
        self._try(self.ledger.rollouts.get(self.ledger.on_trial))
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        return found

    def _try(self, rollout: Rollout | None) -> None:
        """Begins a trial, or ends it. One on other terms, or beside another one, begins anew."""
        terms: tuple[object, ...] | None = None
        if rollout:
            terms = rollout.revision, rollout.state, rollout.percent, rollout.gates
            terms = (*terms, self.ledger.active)
        if terms != self._terms:
            self._terms, self.trial = terms, Trial(rollout) if rollout else None

    async def _warm(self, number: int) -> Rollout:
        """Loads what was staged, while other commands go on."""
        try:
            value = await self._loaded(number)
        except _UNFIT as error:
            async with self._lock:
                if (found := self.ledger.rollout(number)).state is not RolloutState.STAGED:
                    return found
                return await self._own(Verb.QUARANTINE, number, str(error))
        async with self._lock:
            if (
                found := self.ledger.rollout(number)
            ).state is not RolloutState.STAGED:  # or retired
                self._loader.release(value)
                return found
            self._revisions.add(number, value)
            try:
                return await self._own(Verb.WARM, number)
            except BaseException:
                self._revisions.retire(number, self._loader.release)
                raise

    async def _load_again(self, number: int) -> None:
        """What was loaded before the start, unless it has been let go of meanwhile."""
        if self.ledger.rollout(number).state not in LOADED:
            return
        try:
            value = await self._loaded(number)
        except (*_UNFIT, NoRoomError) as error:
            async with self._lock:
                if self.ledger.rollout(number).state in LOADED:
                    await self._own(Verb.ROLL_BACK, number, str(error))
            return
        async with self._lock:
            if self.ledger.rollout(number).state in LOADED:
                self._revisions.add(number, value)
            else:
                self._loader.release(value)

    async def _loaded(self, number: int) -> T:
        digest = self.ledger.rollout(number).bundle_digest
        return await self._loader.load(self._store.folder_of(digest))

    async def _own(self, verb: Verb, number: int, reason: str = "") -> Rollout:
        """A command of the server's own; a number goes through each of them once."""
        key = f"{_OWN}{verb.value} {number}"
        command = RolloutCommand(
            verb, number, self.ledger.active, key, reason=reason[:MAX_REASON_CHARS]
        )
        return await self._write(command)

    def _follow(self) -> None:
        """Sends requests where the ledger says, and lets go of what it no longer holds.

        What was rolled back goes on answering those who name it for a while: who was ranked by
        it may yet ask why.
        """
        self._revisions.direct(self._traffic())
        loop = asyncio.get_running_loop()
        for number in self._revisions.serving:
            state = self.ledger.rollout(number).state
            if state is RolloutState.ROLLED_BACK:
                loop.call_later(self._retire_s, self._let_go, number)
            elif state not in LOADED:
                self._let_go(number)

    def _let_go(self, number: int) -> None:
        """Takes no new requests for a revision; those that hold it are told to end later."""
        if number in self._revisions.serving:
            self._revisions.retire(number, self._loader.release)
            loop = asyncio.get_running_loop()
            loop.call_later(self._retire_s, self._revisions.revoke, number)

    def _traffic(self) -> Traffic:
        """Where the ledger says, but nobody to what was found to be worse."""
        if self.trial and self.trial.judgement.verdict is TrialVerdict.BREACH:
            return Traffic(self.ledger.active)
        return traffic_of(self.ledger)
