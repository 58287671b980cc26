"""Rankings of one bundle and of another, dealt out to the arms of canaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle
from rankloom_adapters.rollout.agreement import kendall
from rankloom_adapters.rollout.evidence import Observation, observe
from rankloom_adapters.rollout.judge import TrialVerdict
from rankloom_adapters.rollout.states import Rollout, RolloutState
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.split import Arm, arm_of
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.events import EventLog
from rankloom_training.scoring import BundleScorer, Request

PER_USER, NUM_CANDIDATES = 8, 20
PERCENT, CHECKS = 50, 3
LATENCY_S, SPREAD = 0.03, 0.3  # median, and of the logarithm


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """One ranking: what a trial sees of it, but for the time, and the scores themselves."""

    user: str
    seen: Observation
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What came of all canaries of one kind. ``at``: which check was the last; 0: none breached."""

    name: str
    at: Sequence[int]
    gates: Counter[str]
    kendall: float

    @property
    def figures(self) -> dict[str, object]:
        """For the JSON file."""
        return {
            "name": self.name,
            "runs": len(self.at),
            "rolled_back_within_3": sum(0 < each <= CHECKS for each in self.at),
            "rolled_back": sum(each > 0 for each in self.at),
            "kendall": round(self.kendall, 3),
            "gates": dict(self.gates),
        }

    @property
    def row(self) -> str:
        """Of the table."""
        early, back = sum(0 < at <= CHECKS for at in self.at), sum(at > 0 for at in self.at)
        gates = ", ".join(f"{gate} {num}" for gate, num in self.gates.most_common(2)) or "none"
        return f"| {self.name} | {len(self.at)} | {early} | {back} | {self.kendall:.2f} | {gates} |"


def asked(bundle: Bundle) -> list[tuple[str, Request]]:
    """Some rankings of random items by every user of the bundle's log."""
    random, log = np.random.default_rng(2), EventLog.from_bytes(bundle.read(parts.EVENTS))
    items = Catalogue.from_bytes(bundle.read(parts.CATALOGUE)).items
    return [
        (user, Request(np.zeros(NUM_CANDIDATES, np.int64), log.events_of(user), drawn))
        for user in log.users
        for drawn in (_drawn(random, items) for _ in range(PER_USER))
    ]


def _drawn(random: np.random.Generator, items: Sequence[Item]) -> tuple[Item, ...]:
    places = random.choice(len(items), NUM_CANDIDATES, replace=False)
    return tuple(items[place] for place in places)


def rankings_of(bundle: Bundle, questions: Sequence[tuple[str, Request]]) -> list[Ranked]:
    """What a server of the bundle would answer, in their order."""
    scorer = BundleScorer(bundle)
    weaver = scorer.engine.weaver
    prepared = [scorer.prepare(request) for _, request in questions]
    mixtures = [weaver.router.route(each.features.vector).weights for each in prepared]
    margins = scorer.margins(prepared, {0: np.stack(mixtures)}, lambda *_: None)[0]
    number = {user: place for place, (user, _) in enumerate(questions)}
    found = []
    for (user, _), each, mixture, margin in zip(
        questions, prepared, mixtures, np.split(margins, len(questions)), strict=True
    ):
        scores = weaver.finish(margin, each.tree_logits)
        group = weaver.gate.experts[int(mixture.argmax())]
        given = (scores.score, each.tree_logits, scores.probability)
        seen = observe(number[user], group, LATENCY_S, *given)
        found.append(Ranked(user, seen, scores.score))
    return found


class Canaries:
    """Canaries of one bundle beside another; all rankings of the first are of the same users."""

    def __init__(self, name: str, canary: Sequence[Ranked], baseline: Sequence[Ranked]) -> None:
        self._name = name
        self._arms = {Arm.CANARY: canary, Arm.BASELINE: baseline}
        pairs = zip(canary, baseline, strict=True)
        self._kendall = float(np.mean([kendall(a.scores, b.scores) for a, b in pairs]))

    def judged(self, runs: int) -> Found:
        """Runs with salts and orders of their own."""
        found = [self._judged(seed) for seed in range(runs)]
        gates = Counter(gate for _, gate in found if gate)
        return Found(self._name, [at for at, _ in found], gates, self._kendall)

    def _judged(self, seed: int) -> tuple[int, str]:
        """At which check a canary is rolled back, and for which gate; 0 where it is not."""
        random, num = np.random.default_rng(seed), 0
        trial = Trial(Rollout(2, "", RolloutState.CANARY, PERCENT))
        for place in random.permutation(len(self._arms[Arm.BASELINE])):
            user = self._arms[Arm.BASELINE][place].user
            arm = arm_of(user, f"salt {seed}", PERCENT)
            latency_s = LATENCY_S * float(np.exp(SPREAD * random.normal()))
            trial.add(arm, replace(self._arms[arm][place].seen, latency_s=latency_s))
            if not trial.is_due:
                continue
            judgement = trial.check()()
            trial.take(judgement)
            num += judgement.verdict is not TrialVerdict.NO_DATA
            if judgement.verdict is TrialVerdict.BREACH:
                return num, judgement.reason.split(" ")[0]
        return 0, ""
