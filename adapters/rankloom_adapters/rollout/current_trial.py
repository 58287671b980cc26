"""The trial that runs now: starts and ends it with the ledger, and checks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from rankloom_adapters.revision import Traffic
from rankloom_adapters.rollout.judge import Judgement, TrialVerdict
from rankloom_adapters.rollout.states import Ledger, RolloutError
from rankloom_adapters.rollout.traffic import traffic_of
from rankloom_adapters.rollout.trial import Trial


class GatesNotPassedError(RolloutError):
    """A promotion is refused: there is too little evidence, or a gate is breached."""


class CurrentTrial:
    """The trial of the shadow or canary, if there is one. Use it from the event loop.

    It owns the lock of checks: one check runs at a time. No other lock is taken under it.
    """

    def __init__(self, judges: Executor | None = None) -> None:
        """``judges``: runs the checks; None for the loop's own executor."""
        self.trial: Trial | None = None
        self._judges = judges
        self._checking = asyncio.Lock()
        self._conditions: tuple[object, ...] | None = None

    def follow(self, ledger: Ledger) -> None:
        """Starts or ends the trial as the ledger says.

        It starts anew when its share, its gates or the active revision changes: earlier
        evidence says nothing about the new conditions.
        """
        rollout = ledger.rollouts.get(ledger.on_trial)
        conditions: tuple[object, ...] | None = None
        if rollout:
            conditions = rollout.revision, rollout.state, rollout.percent, rollout.gates
            conditions = (*conditions, ledger.active)
        if conditions != self._conditions:
            self._conditions, self.trial = conditions, Trial(rollout) if rollout else None

    def traffic(self, ledger: Ledger) -> Traffic:
        """Where the ledger sends requests, but none to a canary that has breached a gate."""
        traffic = traffic_of(ledger)
        if self.trial and self.trial.judgement.verdict is TrialVerdict.BREACH:
            return Traffic(traffic.active, pinnable=traffic.pinnable)
        return traffic

    async def check(self, when: Callable[[Trial], bool]) -> tuple[Trial, Judgement] | None:
        """Judges the trial; None where there is none, or where ``when`` says not to."""
        async with self._checking:
            trial = self.trial
            if trial is None or not when(trial):
                return None
            loop = asyncio.get_running_loop()
            judgement = await loop.run_in_executor(self._judges, trial.check())
            trial.take(judgement)
        return trial, judgement

    def require_pass(self, revision: int) -> None:
        """Raises GatesNotPassedError unless the revision's trial has passed."""
        trial = self.trial if self.trial and self.trial.revision == revision else None
        if trial is None:
            raise GatesNotPassedError(
                f"revision {revision} has not been tried: start a shadow or a canary, "
                "or promote without gates and say why"
            )
        if trial.judgement.verdict is not TrialVerdict.PASS:
            raise GatesNotPassedError(f"no gate lets it pass: {trial.judgement.reason}")
