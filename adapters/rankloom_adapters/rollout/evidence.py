"""Evidence about a revision on trial: one small record for each ranking.

Scores are reduced to a few statistics at once, so that a long trial fits into memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankloom_adapters.rollout.agreement import (
    Scores,
    kendall,
    recall_overlap,
    tie_rate,
    topk_overlap,
)
from rankloom_adapters.split import Arm

DEFAULT_TOP_K = 5
MAX_OBSERVATIONS = 20_000  # of each arm, and of pairs: about 8 MB each


@dataclass(frozen=True, slots=True)
class Observation:
    """One ranking by an arm of a canary; a statistic is NaN where there is none.

    ``user``: a number that identifies the user. ``group``: the user's largest expert in the
    router of the *active* revision, whichever arm answered, so that both arms draw the users of
    a group the same way. Users with group "" count only among all users. ``failed``: no answer,
    or a fallback because the engine failed. ``contribution``: mean over candidates of score less
    tree logit; ``spread``: its standard deviation. ``agreement``: Kendall's τ_b of tree logit
    and score. ``reused``: the user's history was cached from an earlier call, which makes the
    answer faster; a new revision has no cache yet.
    """

    user: int
    group: str
    latency_s: float
    failed: bool = False
    non_finite: bool = False
    score: float = math.nan
    contribution: float = math.nan
    spread: float = math.nan
    agreement: float = math.nan
    probability: float = math.nan
    tie_rate: float = math.nan
    reused: bool = False

    def __post_init__(self) -> None:
        _check_latency(self.latency_s)


def observe(
    user: int,
    group: str,
    latency_s: float,
    scores: Scores,
    tree_logits: Scores,
    probabilities: Scores,
    *,
    reused: bool = False,
) -> Observation:
    """Observes a ranking from (candidates,) scores, tree logits and probabilities.

    Pass only scored candidates: a value that is not finite, or too large for a mean, makes the
    ranking a failed one. Raises ValueError.
    """
    _check_lists(scores, tree_logits, probabilities)
    with np.errstate(over="ignore", invalid="ignore"):
        contribution = scores - tree_logits
        means = [each.mean() for each in (scores, contribution, probabilities)]
        spread = contribution.std()
    if not np.isfinite([*means, spread]).all():
        return Observation(user, group, latency_s, failed=True, non_finite=True)
    return Observation(
        user,
        group,
        latency_s,
        score=float(means[0]),
        contribution=float(means[1]),
        spread=float(spread),
        agreement=kendall(tree_logits, scores),
        probability=float(means[2]),
        tie_rate=tie_rate(scores),
        reused=reused,
    )


def observe_failure(user: int, group: str, latency_s: float) -> Observation:
    """Observes a ranking that the engine did not answer. Raises ValueError."""
    return Observation(user, group, latency_s, failed=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """One revision's (candidates,) scores for a request, None where it failed.

    ``latency_s``: without queueing, because a shadow waits behind all other requests.
    """

    latency_s: float
    scores: Scores | None
    reused: bool = False

    def __post_init__(self) -> None:
        _check_latency(self.latency_s)

    @property
    def usable(self) -> Scores | None:
        """The scores, None unless all are finite."""
        finite = self.scores is not None and np.isfinite(self.scores).all()
        return self.scores if finite else None


@dataclass(frozen=True, slots=True)
class Pair:
    """One request that the active revision and its shadow answered.

    Statistics are NaN where one of them failed. ``non_finite``: the shadow's scores contain NaN
    or infinity. ``comparable``: both or neither had the user's history cached, so that their
    latencies can be compared. ``tie_increase``: the shadow's share of tied scores less the
    active one's.
    """

    user: int
    group: str
    active_latency_s: float
    shadow_latency_s: float
    active_failed: bool = False
    shadow_failed: bool = False
    non_finite: bool = False
    overlap: float = math.nan
    kendall: float = math.nan
    active_score: float = math.nan
    shadow_score: float = math.nan
    tie_increase: float = math.nan
    comparable: bool = True


def compare(
    user: int, group: str, active: Reply, shadow: Reply, top_k: int = DEFAULT_TOP_K
) -> Pair:
    """Compares both replies for the same candidates. Raises ValueError."""
    ours, theirs = shadow.usable, active.usable
    failed = Pair(
        user,
        group,
        active.latency_s,
        shadow.latency_s,
        active_failed=theirs is None,
        shadow_failed=ours is None,
        non_finite=ours is None and shadow.scores is not None,
    )
    if ours is None or theirs is None:
        return failed
    _check_lists(ours, theirs)
    return Pair(
        user,
        group,
        active.latency_s,
        shadow.latency_s,
        overlap=topk_overlap(ours, theirs, top_k),
        kendall=kendall(ours, theirs),
        active_score=float(theirs.mean()),
        shadow_score=float(ours.mean()),
        tie_increase=tie_rate(ours) - tie_rate(theirs),
        comparable=active.reused == shadow.reused,
    )


@dataclass(frozen=True, slots=True)
class RetrievalPair:
    """One retrieval that the active revision and its shadow answered.

    ``overlap``: the share of the active one's items that the shadow retrieved too.
    """

    user: int
    group: str
    overlap: float


def compare_retrievals(
    user: int, group: str, active: Sequence[str], shadow: Sequence[str]
) -> RetrievalPair:
    """Compares the item ids of both; ``active``: at least one. ``shadow``: none if it failed."""
    return RetrievalPair(user, group, recall_overlap(active, shadow))


def _check_latency(latency_s: float) -> None:
    if not 0.0 <= latency_s < math.inf:
        raise ValueError(f"invalid latency: {latency_s} s; measure it with a monotonic clock")


def _check_lists(*lists: Scores) -> None:
    shapes = {each.shape for each in lists}
    if len(shapes) > 1 or lists[0].ndim != 1 or not len(lists[0]):
        raise ValueError(
            f"lists of shapes {sorted(shapes)}; give one number per candidate in each list"
        )


class Evidence:
    """The newest observations of each arm of a canary, or the newest pairs of a shadow.

    It belongs to one trial. Use it from one event loop.
    """

    def __init__(self, max_observations: int = MAX_OBSERVATIONS) -> None:
        if max_observations < 1:
            raise ValueError(f"max_observations is {max_observations}; it must be at least 1")
        self._observations = {
            arm: deque[Observation](maxlen=max_observations) for arm in (Arm.CANARY, Arm.BASELINE)
        }
        self._pairs = deque[Pair](maxlen=max_observations)
        self._retrievals = deque[RetrievalPair](maxlen=max_observations)

    def add(self, arm: Arm, observation: Observation) -> None:
        """Adds an observation; drops the arm's oldest one at the limit."""
        self._of(arm).append(observation)

    def add_pair(self, pair: Pair) -> None:
        """Adds a pair; drops the oldest one at the limit."""
        self._pairs.append(pair)

    def add_retrieval(self, pair: RetrievalPair) -> None:
        """Adds a pair of retrievals; drops the oldest one at the limit."""
        self._retrievals.append(pair)

    def observations(self, arm: Arm) -> tuple[Observation, ...]:
        """A copy for another thread, oldest first."""
        return tuple(self._of(arm))

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """A copy for another thread, oldest first."""
        return tuple(self._pairs)

    @property
    def retrievals(self) -> tuple[RetrievalPair, ...]:
        """A copy for another thread, oldest first."""
        return tuple(self._retrievals)

    def _of(self, arm: Arm) -> deque[Observation]:
        if arm not in self._observations:
            raise ValueError(f"arm is {arm.value!r}; only canary and baseline are observed")
        return self._observations[arm]
