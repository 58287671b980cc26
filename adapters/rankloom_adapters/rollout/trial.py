"""One revision on trial: what has been seen of it, and when it is judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rankloom_adapters.rollout.evidence import Evidence, Observation, Pair
from rankloom_adapters.rollout.judge import Judgement, TrialVerdict, judge_canary, judge_shadow
from rankloom_adapters.rollout.states import Rollout, RolloutState
from rankloom_adapters.rollout.thresholds import Thresholds
from rankloom_adapters.split import Arm

GROWTH = 1.5  # how much more must have been seen since the last check
_NOTHING = Judgement(TrialVerdict.NO_DATA, (), "nothing has been seen yet")


def thresholds_of(gates: str) -> Thresholds:
    """From a command's text: JSON with some of the fields. Raises ValueError."""
    given: dict[str, Any] = json.loads(gates) if gates else {}
    try:
        return Thresholds(**given)
    except TypeError:
        raise ValueError(f"gates: no such field among {sorted(given)}") from None


class Trial:
    """A shadow or a canary from its start to its end. Use it from one event loop.

    Checks are paced by what has been seen and not by a clock: one that jumps promotes
    nothing early. Each has half as much again to go by as the last one, since every check
    may raise a false alarm. They go on for as long as the trial does.
    """

    def __init__(self, rollout: Rollout) -> None:
        """Raises ValueError for gates that are none."""
        self.revision, self.state = rollout.revision, rollout.state
        self.percent = rollout.percent or 100
        self.thresholds = thresholds_of(rollout.gates)
        self.judgement = _NOTHING
        self.num_seen = {Arm.CANARY: 0, Arm.BASELINE: 0}
        self._evidence = Evidence()
        self._num_checks = 0
        self._next_at = self.thresholds.min_samples
        self._num_judged = 0
        self._alarm = False

    def add(self, arm: Arm, observation: Observation) -> None:
        """One more ranking of a canary's arm."""
        self._evidence.add(arm, observation)
        self.num_seen[arm] += 1
        self._alarm |= observation.non_finite and arm is Arm.CANARY

    def add_pair(self, pair: Pair) -> None:
        """One more request that a shadow has answered too."""
        self._evidence.add_pair(pair)
        for arm in self.num_seen:
            self.num_seen[arm] += 1
        self._alarm |= pair.non_finite

    @property
    def is_due(self) -> bool:
        """Whether it is to be judged now."""
        if self.judgement.verdict is TrialVerdict.BREACH:
            return False
        enough = min(self.num_seen.values()) >= self._next_at
        return self._alarm or enough

    @property
    def is_unjudged(self) -> bool:
        """Whether there is enough to judge, and more of it than at the last check."""
        if self.judgement.verdict is TrialVerdict.BREACH:
            return False
        enough = min(self.num_seen.values()) >= self.thresholds.min_samples
        return enough and self._num_seen > self._num_judged

    @property
    def _num_seen(self) -> int:
        return sum(self.num_seen.values())

    def check(self) -> Callable[[], Judgement]:
        """Begins a check; what it gives may be called on another thread."""
        self._next_at = max(int(min(self.num_seen.values()) * GROWTH), self._next_at)
        self._num_judged, self._alarm = self._num_seen, False
        limits, number = self.thresholds, self._num_checks + 1
        if self.state is RolloutState.SHADOW:
            pairs = self._evidence.pairs
            return lambda: judge_shadow(pairs, limits, number)
        canary, baseline = (self._evidence.observations(arm) for arm in self.num_seen)
        return lambda: judge_canary(canary, baseline, limits, number)

    def take(self, judgement: Judgement) -> None:
        """Ends a check. One that had too little to go by was none."""
        self.judgement = judgement
        self._num_checks += judgement.verdict is not TrialVerdict.NO_DATA
