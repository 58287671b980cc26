"""One trial: collects its evidence and decides when to judge it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rankloom_adapters.rollout.evidence import Evidence, Observation, Pair, RetrievalPair
from rankloom_adapters.rollout.gates import GateOutcome
from rankloom_adapters.rollout.judge import Judgement, TrialVerdict, judge_canary, judge_shadow
from rankloom_adapters.rollout.states import Rollout, RolloutState
from rankloom_adapters.rollout.thresholds import Thresholds
from rankloom_adapters.split import Arm

GROWTH = 1.5  # of the evidence, from one check to the next
_NOTHING = Judgement(TrialVerdict.NO_DATA, (), "there is no evidence yet")


def thresholds_of(gates: str) -> Thresholds:
    """Parses a command's gates: JSON with some of the fields. Raises ValueError."""
    given: dict[str, Any] = json.loads(gates) if gates else {}
    try:
        return Thresholds(**given)
    except TypeError:
        raise ValueError(f"gates: unknown field among {sorted(given)}") from None


class Trial:
    """A shadow or a canary from its start to its end. Use it from one event loop.

    Checks depend on the amount of evidence, not on a clock, which may jump. Each check needs
    GROWTH times the evidence of the one before, because every check may raise a false alarm.
    They go on as long as the trial does.
    """

    def __init__(self, rollout: Rollout) -> None:
        """Raises ValueError for invalid gates."""
        self.revision, self.state = rollout.revision, rollout.state
        self.percent = rollout.percent or 100
        self.thresholds = thresholds_of(rollout.gates)
        self.judgement = _NOTHING
        self.num_seen = {Arm.CANARY: 0, Arm.BASELINE: 0}
        self._evidence = Evidence()
        self._num_checks = 0
        self._next_at = self._next_retrieval_at = self.thresholds.min_samples
        self._num_retrievals = 0
        self._num_judged = 0
        self._has_bad_score = False

    def add(self, arm: Arm, observation: Observation) -> None:
        """Adds a ranking by an arm of a canary."""
        self._evidence.add(arm, observation)
        self.num_seen[arm] += 1
        self._has_bad_score |= observation.non_finite and arm is Arm.CANARY

    def add_pair(self, pair: Pair) -> None:
        """Adds a request that the active revision and the shadow answered."""
        self._evidence.add_pair(pair)
        for arm in self.num_seen:
            self.num_seen[arm] += 1
        self._has_bad_score |= pair.non_finite

    def add_retrieval(self, pair: RetrievalPair) -> None:
        """Adds a retrieval that the active revision and the shadow answered."""
        self._evidence.add_retrieval(pair)
        self._num_retrievals += 1

    @property
    def is_due(self) -> bool:
        """Whether a check is due."""
        if self.judgement.verdict is TrialVerdict.BREACH:
            return False
        enough = min(self.num_seen.values()) >= self._next_at
        enough |= self._num_retrievals >= self._next_retrieval_at
        return self._has_bad_score or enough

    @property
    def is_unjudged(self) -> bool:
        """Whether there is enough evidence, and more than at the last check."""
        if self.judgement.verdict is TrialVerdict.BREACH:
            return False
        enough = min(self.num_seen.values()) >= self.thresholds.min_samples
        return enough and self._num_seen > self._num_judged

    @property
    def _num_seen(self) -> int:
        return sum(self.num_seen.values()) + self._num_retrievals

    def check(self) -> Callable[[], Judgement]:
        """Starts a check; call the returned function in any thread, its result goes to `take`."""
        self._next_at = max(int(min(self.num_seen.values()) * GROWTH), self._next_at)
        grown = int(self._num_retrievals * GROWTH)
        self._next_retrieval_at = max(grown, self._next_retrieval_at)
        self._num_judged, self._has_bad_score = self._num_seen, False
        limits, number = self.thresholds, self._num_checks + 1
        if self.state is RolloutState.SHADOW:
            pairs, retrievals = self._evidence.pairs, self._evidence.retrievals
            return lambda: judge_shadow(pairs, limits, number, retrievals)
        canary, baseline = (self._evidence.observations(arm) for arm in self.num_seen)
        return lambda: judge_canary(canary, baseline, limits, number)

    def take(self, judgement: Judgement) -> None:
        """Ends a check. One without enough data for any gate does not count."""
        self.judgement = judgement
        tested = (gate.outcome is not GateOutcome.NO_DATA for gate in judgement.gates)
        self._num_checks += any(tested)
