"""Rankings of two bundles, dealt out to the arms of canaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.rollout.agreement import kendall
from rankloom_adapters.rollout.evidence import Observation
from rankloom_adapters.rollout.judge import TrialVerdict
from rankloom_adapters.rollout.states import Rollout, RolloutState
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.split import Arm, arm_of

PERCENT, EARLY_CHECKS = 50, 3
LATENCY_S, SPREAD = 0.03, 0.3  # median, and standard deviation of the logarithm


@dataclass(frozen=True, slots=True, eq=False)
class CanaryRanking:
    """One ranking: what a trial sees of it, except for the time, and the scores themselves."""

    user: str
    seen: Observation
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CanaryOutcomes:
    """Outcomes of all canaries of one kind.

    ``rolled_back_at``: number of the check that rolled each one back; 0 if none did. ``gates``:
    how often each gate did. ``kendall``: agreement of both bundles' orders, τ.
    """

    name: str
    rolled_back_at: Sequence[int]
    gates: Counter[str]
    kendall: float

    @property
    def figures(self) -> dict[str, object]:
        """For the result file."""
        return {
            "name": self.name,
            "runs": len(self.rolled_back_at),
            "rolled_back_early": sum(0 < each <= EARLY_CHECKS for each in self.rolled_back_at),
            "rolled_back": sum(each > 0 for each in self.rolled_back_at),
            "kendall": round(self.kendall, 3),
            "gates": dict(self.gates),
        }


class CanaryTrials:
    """Canaries of one bundle beside another; both rank the same items for the same users."""

    def __init__(
        self, name: str, canary: Sequence[CanaryRanking], baseline: Sequence[CanaryRanking]
    ) -> None:
        self._name = name
        self._arms = {Arm.CANARY: canary, Arm.BASELINE: baseline}
        pairs = zip(canary, baseline, strict=True)
        self._kendall = float(np.mean([kendall(a.scores, b.scores) for a, b in pairs]))

    def run(self, num: int) -> CanaryOutcomes:
        """That many canaries, each with its own salt and order of rankings."""
        found = [self._run_one(seed) for seed in range(num)]
        gates = Counter(gate for _, gate in found if gate)
        return CanaryOutcomes(self._name, [at for at, _ in found], gates, self._kendall)

    def _run_one(self, seed: int) -> tuple[int, str]:
        """The check that rolls the canary back, and its gate; 0 and "" if none does."""
        random, num = np.random.default_rng(seed), 0
        trial = Trial(Rollout(2, "", RolloutState.CANARY, PERCENT))
        for index in random.permutation(len(self._arms[Arm.BASELINE])):
            user = self._arms[Arm.BASELINE][index].user
            arm = arm_of(user, f"salt {seed}", PERCENT)
            latency_s = LATENCY_S * float(np.exp(SPREAD * random.normal()))
            trial.add(arm, replace(self._arms[arm][index].seen, latency_s=latency_s))
            if not trial.is_due:
                continue
            judgement = trial.check()()
            trial.take(judgement)
            num += judgement.verdict is not TrialVerdict.NO_DATA
            if judgement.verdict is TrialVerdict.BREACH:
                return num, judgement.reason.split(" ")[0]
        return 0, ""
