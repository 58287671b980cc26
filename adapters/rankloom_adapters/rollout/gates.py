"""The gates: what is measured of a revision on trial, and the bound of each measure."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import numpy as np

from rankloom_adapters.rollout.statistics import (
    Finding,
    Sample,
    kolmogorov_smirnov,
    mean_above,
    mean_below,
    mean_increase,
    mean_shift,
    population_stability,
    rate_excess,
    rate_increase,
)
from rankloom_adapters.rollout.table import Arms, ObservationTable
from rankloom_adapters.rollout.thresholds import Thresholds

T = TypeVar("T")
Measure = Callable[[T, int], tuple[int, Finding | None]]
_TAIL = 0.95
_DISTRIBUTIONS = ("score", "contribution", "spread")


class GateOutcome(Enum):
    """The result of a gate. NO_DATA: too few users."""

    PASSED = "passed"
    BREACHED = "breached"
    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class GateResult:
    """``group``: "" for all users. ``num_samples``: users, in the arm with fewer of them.

    ``p_value``: probability of such a value by chance. ``value``: 0 without data.
    """

    name: str
    group: str
    value: float
    bound: float
    num_samples: int
    outcome: GateOutcome
    p_value: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class GateRule(Generic[T]):
    """A measure of the evidence T, and its bound.

    ``measure`` takes the evidence and the fewest users that are enough. It returns the number of
    users, and a finding if there are enough.
    """

    name: str
    bound: float
    measure: Measure[T]
    is_beyond: Callable[[float, float], bool] = operator.gt

    def check(self, observed: T, group: str, min_users: int, level: float) -> GateResult:
        """Breached if the value is beyond the bound and significant at ``level``."""
        num, found = self.measure(observed, min_users)
        if found is None:
            return GateResult(self.name, group, 0.0, self.bound, num, GateOutcome.NO_DATA)
        breached = found.p_value < level and self.is_beyond(found.value, self.bound)
        outcome = GateOutcome.BREACHED if breached else GateOutcome.PASSED
        return GateResult(self.name, group, found.value, self.bound, num, outcome, found.p_value)


def canary_rules(thresholds: Thresholds) -> tuple[GateRule[Arms], ...]:
    """Gates on failures and latency, then on the scores of both arms.

    A bad expert adds something else to the tree logit than the one before: of another size or
    spread, or in another order.
    """
    shift, agreement = thresholds.max_calibration_shift, thresholds.max_agreement_shift
    ratio, ties = thresholds.max_latency_ratio, thresholds.max_tie_rate_increase
    return (
        GateRule("errors", thresholds.max_error_increase, _between("failed", rate_increase)),
        GateRule("latency", ratio, _between("log_latency", _mean_ratio)),
        GateRule("tail_latency", ratio, _tail_latency),
        GateRule("ties", ties, _between("tie_rate", rate_increase)),
        GateRule("calibration", shift, _between("probability", mean_shift), _is_further),
        GateRule("agreement", agreement, _between("agreement", mean_shift), _is_further),
        *(
            GateRule(f"{column}_ks", thresholds.max_ks, _between(column, kolmogorov_smirnov))
            for column in _DISTRIBUTIONS
        ),
        *(
            GateRule(f"{column}_psi", thresholds.max_psi, _between(column, population_stability))
            for column in _DISTRIBUTIONS
        ),
    )


def shadow_rules(thresholds: Thresholds) -> tuple[GateRule[ObservationTable], ...]:
    """Gates on the agreement of both lists, then on what increases in the shadow."""
    overlap, tau = thresholds.min_topk_overlap, thresholds.min_kendall
    return (
        GateRule("topk_overlap", overlap, _of("overlap", _below(overlap)), operator.lt),
        GateRule("kendall", tau, _of("kendall", _below(tau)), operator.lt),
        GateRule("errors", thresholds.max_error_increase, _of("failure_increase", rate_excess)),
        GateRule(
            "latency", thresholds.max_latency_ratio, _of("log_latency_increase", _excess_ratio)
        ),
        GateRule("ties", thresholds.max_tie_rate_increase, _of("tie_increase", rate_excess)),
        GateRule("score_ks", thresholds.max_ks, _of_scores(kolmogorov_smirnov)),
        GateRule("score_psi", thresholds.max_psi, _of_scores(population_stability)),
    )


def retrieval_rules(thresholds: Thresholds) -> tuple[GateRule[ObservationTable], ...]:
    """The gate on what a shadow retrieves."""
    overlap = thresholds.min_recall_overlap
    return (GateRule("recall_overlap", overlap, _of("overlap", _below(overlap)), operator.lt),)


def _between(column: str, test: Callable[[Sample, Sample], Finding]) -> Measure[Arms]:
    def measure(arms: Arms, min_users: int) -> tuple[int, Finding | None]:
        ours, theirs = arms.canary.means(column), arms.baseline.means(column)
        num = min(len(ours), len(theirs))
        return num, test(ours, theirs) if num >= min_users else None

    return measure


def _tail_latency(arms: Arms, min_users: int) -> tuple[int, Finding | None]:
    """Ratio of the 95th percentiles; the test compares each user's share of slow rankings."""
    tables = (arms.canary, arms.baseline)
    num = min(len(each.means("log_latency")) for each in tables)
    if num < min_users:
        return num, None
    latencies = [each.columns["log_latency"] for each in tables]
    known = [each[~np.isnan(each)] for each in latencies]
    ours, theirs, slowest = (np.quantile(each, _TAIL) for each in (*known, np.concatenate(known)))
    slow = [np.where(np.isnan(each), np.nan, each > slowest) for each in latencies]
    found = rate_increase(arms.canary.means_of(slow[0]), arms.baseline.means_of(slow[1]))
    return num, Finding(math.exp(ours - theirs), found.p_value)


def _of(column: str, test: Callable[[Sample], Finding]) -> Measure[ObservationTable]:
    def measure(pairs: ObservationTable, min_users: int) -> tuple[int, Finding | None]:
        values = pairs.means(column)
        return len(values), test(values) if len(values) >= min_users else None

    return measure


def _of_scores(test: Callable[[Sample, Sample], Finding]) -> Measure[ObservationTable]:
    """Both samples have the same users, which makes the test conservative."""

    def measure(pairs: ObservationTable, min_users: int) -> tuple[int, Finding | None]:
        ours, theirs = pairs.means("shadow_score"), pairs.means("active_score")
        return len(ours), test(ours, theirs) if len(ours) >= min_users else None

    return measure


def _below(bound: float) -> Callable[[Sample], Finding]:
    return lambda values: mean_below(values, bound)


def _mean_ratio(ours: Sample, theirs: Sample) -> Finding:
    """Ratio of geometric means, from logarithms."""
    found = mean_increase(ours, theirs)
    return Finding(math.exp(found.value), found.p_value)


def _excess_ratio(differences: Sample) -> Finding:
    found = mean_above(differences, 0.0)
    return Finding(math.exp(found.value), found.p_value)


def _is_further(value: float, bound: float) -> bool:
    return abs(value) > bound
