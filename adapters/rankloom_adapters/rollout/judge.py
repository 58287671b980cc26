"""Judges the evidence: a revision on trial passes, breaches a gate, or needs more data.

Each check tests every gate, for all users and for each group that is large enough. All tests
share the rate of false alarms that a rollout may have. Run it in a thread: it takes up to 0.2 s
with all the evidence that a trial keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, Self, TypeVar

from rankloom_adapters.rollout.evidence import Observation, Pair
from rankloom_adapters.rollout.gates import (
    GateOutcome,
    GateResult,
    GateRule,
    canary_rules,
    shadow_rules,
)
from rankloom_adapters.rollout.states import MAX_REASON_CHARS
from rankloom_adapters.rollout.table import ObservationTable, arms_of, table_of_pairs
from rankloom_adapters.rollout.thresholds import Thresholds

_MAX_GROUP_CHARS = 60


class TrialVerdict(Enum):
    """PASS: every gate passed for all users, and none was breached for a group."""

    PASS = "pass"
    BREACH = "breach"
    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class Judgement:
    """``reason``: one line for operators; after a breach, about the worst gate."""

    verdict: TrialVerdict
    gates: tuple[GateResult, ...]
    reason: str


class _Grouped(Protocol):
    def of(self, group: str) -> Self: ...

    def groups(self, min_users: int) -> frozenset[str]: ...


T = TypeVar("T", bound=_Grouped)


def judge_canary(
    canary: Sequence[Observation],
    baseline: Sequence[Observation],
    thresholds: Thresholds,
    check: int = 1,
) -> Judgement:
    """Judges a canary by all rankings of both arms; ``check`` counts from 1."""
    arms = arms_of(canary, baseline)
    gates = _gates(arms, canary_rules(thresholds), thresholds, check)
    return _judgement((_finiteness(arms.canary, thresholds), *gates), thresholds)


def judge_shadow(pairs: Sequence[Pair], thresholds: Thresholds, check: int = 1) -> Judgement:
    """Judges a shadow by all pairs of rankings; ``check`` counts from 1."""
    table = table_of_pairs(pairs)
    gates = _gates(table, shadow_rules(thresholds), thresholds, check)
    return _judgement((_finiteness(table, thresholds), *gates), thresholds)


def _gates(
    observed: T, rules: Sequence[GateRule[T]], thresholds: Thresholds, check: int
) -> tuple[GateResult, ...]:
    groups = sorted(observed.groups(thresholds.min_group_samples))
    level = thresholds.level(len(rules) * (1 + len(groups)), check)
    of_all = [rule.check(observed, "", thresholds.min_samples, level) for rule in rules]
    parts: Mapping[str, T] = {group: observed.of(group) for group in groups}
    of_groups = [
        rule.check(part, group, thresholds.min_group_samples, level)
        for group, part in parts.items()
        for rule in rules
    ]
    return (*of_all, *of_groups)


def _finiteness(table: ObservationTable, thresholds: Thresholds) -> GateResult:
    """A single NaN or infinite score is a breach, even before there is enough evidence."""
    num_bad = float(table.columns["non_finite"].sum())
    num_users = len(table.means("non_finite"))
    if num_bad:
        return GateResult("non_finite", "", num_bad, 0.0, num_users, GateOutcome.BREACHED, 0.0)
    enough = num_users >= thresholds.min_samples
    outcome = GateOutcome.PASSED if enough else GateOutcome.NO_DATA
    return GateResult("non_finite", "", 0.0, 0.0, num_users, outcome)


def _judgement(gates: tuple[GateResult, ...], thresholds: Thresholds) -> Judgement:
    breached = [each for each in gates if each.outcome is GateOutcome.BREACHED]
    unknown = [each for each in gates if each.outcome is GateOutcome.NO_DATA and not each.group]
    if breached:
        verdict, reason = TrialVerdict.BREACH, _breach(breached)
    elif unknown:
        least = min(unknown, key=lambda gate: gate.num_samples)
        verdict = TrialVerdict.NO_DATA
        reason = f"{least.name}: {least.num_samples} users, {thresholds.min_samples} are needed"
    else:
        least = min((each for each in gates if not each.group), key=lambda gate: gate.num_samples)
        verdict = TrialVerdict.PASS
        reason = f"no gate is breached after {least.num_samples} users or more"
    return Judgement(verdict, gates, reason[:MAX_REASON_CHARS])


def _breach(breached: Sequence[GateResult]) -> str:
    """Describes the gate with the smallest p-value, the first of equal ones."""
    worst = min(breached, key=lambda gate: gate.p_value)
    whose = f" of group {worst.group[:_MAX_GROUP_CHARS]}" if worst.group else ""
    more = f"; {len(breached) - 1} more breached" if len(breached) > 1 else ""
    return (
        f"{worst.name}{whose} is {worst.value:.4g} where {worst.bound:.4g} is the bound, "
        f"after {worst.num_samples} users (p = {worst.p_value:.1g}){more}"
    )
