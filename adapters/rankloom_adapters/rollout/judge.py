"""Judges the evidence: a revision on trial passes, breaches a gate, or needs more data.

Each check tests every gate, for all users and for each group that is large enough. All tests
share the rate of false alarms that a rollout may have. Run it in a thread: it takes up to 0.2 s
with all the evidence that a trial keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, Self, TypeVar

from rankloom_adapters.rollout.evidence import Observation, Pair, RetrievalPair
from rankloom_adapters.rollout.gates import (
    GateOutcome,
    GateResult,
    GateRule,
    canary_rules,
    retrieval_rules,
    shadow_rules,
)
from rankloom_adapters.rollout.states import MAX_REASON_CHARS
from rankloom_adapters.rollout.table import (
    ObservationTable,
    arms_of,
    table_of_pairs,
    table_of_retrievals,
)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Family(Generic[T]):
    """Evidence of one kind, and the rules that judge it for all users and for each large group."""

    observed: T
    rules: Sequence[GateRule[T]]
    groups: Sequence[str]

    @classmethod
    def of(cls, observed: T, rules: Sequence[GateRule[T]], thresholds: Thresholds) -> Self:
        return cls(observed, rules, sorted(observed.groups(thresholds.min_group_samples)))

    @property
    def num_tests(self) -> int:
        return len(self.rules) * (1 + len(self.groups))

    def check(self, thresholds: Thresholds, level: float) -> tuple[GateResult, ...]:
        """The result of each rule; ``level``: of significance, of each test."""
        num_all, num_group = thresholds.min_samples, thresholds.min_group_samples
        parts: Mapping[str, T] = {group: self.observed.of(group) for group in self.groups}
        of_all = [rule.check(self.observed, "", num_all, level) for rule in self.rules]
        of_groups = [
            rule.check(part, group, num_group, level)
            for group, part in parts.items()
            for rule in self.rules
        ]
        return (*of_all, *of_groups)


def judge_canary(
    canary: Sequence[Observation],
    baseline: Sequence[Observation],
    thresholds: Thresholds,
    check: int = 1,
) -> Judgement:
    """Judges a canary by all rankings of both arms; ``check`` counts from 1."""
    arms = arms_of(canary, baseline)
    family = _Family.of(arms, canary_rules(thresholds), thresholds)
    gates = family.check(thresholds, thresholds.level(family.num_tests, check))
    return _judgement((_finiteness(arms.canary, thresholds), *gates), thresholds)


def judge_shadow(
    pairs: Sequence[Pair],
    thresholds: Thresholds,
    check: int = 1,
    retrievals: Sequence[RetrievalPair] = (),
) -> Judgement:
    """Judges a shadow by all pairs of rankings, and of retrievals if there are any.

    ``check`` counts from 1.
    """
    table = table_of_pairs(pairs)
    families = [_Family.of(table, shadow_rules(thresholds), thresholds)]
    if retrievals:
        retrieved = table_of_retrievals(retrievals)
        families.append(_Family.of(retrieved, retrieval_rules(thresholds), thresholds))
    level = thresholds.level(sum(each.num_tests for each in families), check)
    gates = [gate for each in families for gate in each.check(thresholds, level)]
    return _judgement((_finiteness(table, thresholds), *gates), thresholds)


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
