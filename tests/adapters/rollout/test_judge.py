"""What breaches each gate, what is too little evidence, and what an operator reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adapters.rollout.observed import (
    GROUPS,
    World,
    observations,
    pairs,
    users_of,
)
from rankloom_adapters.rollout.evidence import Observation, Pair, RetrievalPair
from rankloom_adapters.rollout.gates import GateOutcome, GateResult
from rankloom_adapters.rollout.judge import (
    Judgement,
    TrialVerdict,
    judge_canary,
    judge_shadow,
)
from rankloom_adapters.rollout.states import MAX_REASON_CHARS
from rankloom_adapters.rollout.thresholds import Thresholds

DEFAULTS = Thresholds()
NUM_RANKINGS = 2_000  # of each arm


def arms(canary: World | None = None, seed: int = 0) -> tuple[list[Observation], list[Observation]]:
    random = np.random.default_rng(seed)
    ours, theirs = (
        observations(random, users_of(random), world, NUM_RANKINGS)
        for world in (canary or World(), World())
    )
    return ours, theirs


def gate_of(judgement: Judgement, name: str, group: str = "") -> GateResult:
    return next(each for each in judgement.gates if (each.name, each.group) == (name, group))


def test_a_judgement_passes_with_all_its_gates() -> None:
    found = judge_canary(*arms(), DEFAULTS)
    assert found.verdict is TrialVerdict.PASS
    assert found.reason.startswith("no gate is breached after ")
    assert {each.group for each in found.gates} == {"", *GROUPS}
    assert {each.outcome for each in found.gates if not each.group} == {GateOutcome.PASSED}


def test_the_reason_names_the_worst_gate_and_its_figures() -> None:
    found = judge_canary(*arms(World(slowness=1.5)), DEFAULTS)
    gate = gate_of(found, "latency")
    assert found.verdict is TrialVerdict.BREACH
    assert f"latency is {gate.value:.4g} where 1.1 is the bound" in found.reason
    assert f"after {gate.num_samples} users" in found.reason
    assert 1.4 < gate.value < 1.6


def test_the_reason_names_the_group_that_is_harmed() -> None:
    found = judge_canary(*arms(World(untrue=("comedy",), spread=0.5)), DEFAULTS)
    assert "of group comedy is" in found.reason


def test_a_reason_is_one_short_line() -> None:
    canary, baseline = arms(World(untrue=GROUPS, spread=3.0))
    long = [
        [replace(each, group="g" * 500) for each in observed if each.group == "comedy"]
        for observed in (canary, baseline)
    ]
    found = judge_canary(long[0], long[1], DEFAULTS)
    assert found.verdict is TrialVerdict.BREACH
    assert len(found.reason) <= MAX_REASON_CHARS
    assert "\n" not in found.reason


def test_nothing_observed_is_no_pass() -> None:
    found = judge_canary([], [], DEFAULTS)
    assert found.verdict is TrialVerdict.NO_DATA
    assert found.reason.endswith("0 users, 200 are needed")
    assert {each.outcome for each in found.gates} == {GateOutcome.NO_DATA}
    assert judge_shadow([], DEFAULTS).verdict is TrialVerdict.NO_DATA


@pytest.mark.parametrize("empty", [0, 1])
def test_one_arm_alone_proves_nothing(empty: int) -> None:
    both = list(arms(World(slowness=2.0)))
    both[empty] = []
    assert judge_canary(both[0], both[1], DEFAULTS).verdict is TrialVerdict.NO_DATA


def test_many_rankings_of_few_users_prove_nothing() -> None:
    few = [
        [replace(each, user=number % 150) for number, each in enumerate(observed)]
        for observed in arms()
    ]
    found = judge_canary(few[0], few[1], DEFAULTS)
    assert found.verdict is TrialVerdict.NO_DATA
    assert found.reason.endswith("150 users, 200 are needed")


def test_one_user_who_always_fails_harms_nobody_else() -> None:
    canary, baseline = arms()
    failing = [Observation(7, "drama", 0.01, failed=True)] * NUM_RANKINGS
    found = judge_canary([*canary, *failing], baseline, DEFAULTS)
    assert found.verdict is TrialVerdict.PASS


def test_a_figure_that_nobody_has_is_no_pass() -> None:
    canary, baseline = (
        [replace(each, agreement=math.nan) for each in observed] for observed in arms()
    )
    found = judge_canary(canary, baseline, DEFAULTS)
    assert found.verdict is TrialVerdict.NO_DATA
    assert found.reason == "agreement: 0 users, 200 are needed"


def test_a_figure_that_a_group_has_not_is_no_matter_of_all() -> None:
    canary, baseline = (
        [replace(each, agreement=math.nan) if each.group == "comedy" else each for each in observed]
        for observed in arms()
    )
    found = judge_canary(canary, baseline, DEFAULTS)
    assert gate_of(found, "agreement", "comedy").outcome is GateOutcome.NO_DATA
    assert found.verdict is TrialVerdict.PASS


def test_users_without_a_group_are_judged_among_all() -> None:
    canary, baseline = (
        [replace(each, group="") if each.group == "comedy" else each for each in observed]
        for observed in arms()
    )
    found = judge_canary(canary, baseline, DEFAULTS)
    names = [(each.name, each.group) for each in found.gates]
    assert len(set(names)) == len(names)
    assert {each.group for each in found.gates} == {"", *GROUPS} - {"comedy"}


def test_failing_at_once_hides_no_slowness() -> None:
    canary, baseline = arms(World(slowness=1.5))
    quick = [replace(each, failed=True, latency_s=1e-4) for each in canary[:600]]
    found = judge_canary([*quick, *canary[600:]], baseline, DEFAULTS)
    assert gate_of(found, "latency").outcome is GateOutcome.BREACHED


def test_a_small_group_is_not_judged_alone() -> None:
    canary, baseline = arms()
    rare = [Observation(number, "rare", 9.0, failed=True) for number in range(49)]
    found = judge_canary([*canary, *rare[:1]], [*baseline, *rare], DEFAULTS)
    assert found.verdict is TrialVerdict.PASS
    assert "rare" not in {each.group for each in found.gates}


def test_one_score_that_is_not_finite_is_enough() -> None:
    bad = Observation(7, "drama", 0.1, failed=True, non_finite=True)
    found = judge_canary([bad], [], DEFAULTS)
    assert found.verdict is TrialVerdict.BREACH
    assert found.reason.startswith("non_finite is 1 where 0 is the bound")
    assert judge_canary([], [bad], DEFAULTS).verdict is TrialVerdict.NO_DATA
    shadow = Pair(7, "drama", 0.1, 0.1, shadow_failed=True, non_finite=True)
    assert judge_shadow([shadow], DEFAULTS).verdict is TrialVerdict.BREACH


def changed(**fields: float) -> Callable[[Observation], Observation]:
    """An observation with some higher values."""

    def change(seen: Observation) -> Observation:
        higher: dict[str, Any] = {name: getattr(seen, name) + more for name, more in fields.items()}
        return replace(seen, **higher)

    return change


def with_bound(name: str, value: float) -> Thresholds:
    bound: dict[str, Any] = {name: value}
    return replace(DEFAULTS, **bound)


def failing(seen: Observation) -> Observation:
    return replace(seen, failed=seen.user % 8 == 0)


@pytest.mark.parametrize(
    ("gate", "change", "bound", "loose"),
    [
        ("errors", failing, "max_error_increase", 1.0),
        ("latency", changed(latency_s=0.02), "max_latency_ratio", 2.0),
        ("tail_latency", changed(latency_s=0.05), "max_latency_ratio", 2.0),
        ("ties", changed(tie_rate=0.1), "max_tie_rate_increase", 0.2),
        ("calibration", changed(probability=0.1), "max_calibration_shift", 0.2),
        ("calibration", changed(probability=-0.1), "max_calibration_shift", 0.2),
        ("agreement", changed(agreement=0.2), "max_agreement_shift", 0.3),
        ("agreement", changed(agreement=-0.2), "max_agreement_shift", 0.3),
        ("score_ks", changed(score=1.0), "max_ks", 1.0),
        ("score_psi", changed(score=1.0), "max_psi", 20.0),
        ("contribution_ks", changed(contribution=0.2), "max_ks", 1.0),
        ("contribution_psi", changed(contribution=0.2), "max_psi", 20.0),
        ("spread_ks", changed(spread=0.2), "max_ks", 1.0),
        ("spread_psi", changed(spread=0.2), "max_psi", 20.0),
    ],
)
def test_each_gate_of_a_canary_has_a_bound(
    gate: str, change: Callable[[Observation], Observation], bound: str, loose: float
) -> None:
    canary, baseline = arms()
    harmed = [each if each.failed else change(each) for each in canary]
    loosened = with_bound(bound, loose)
    assert gate_of(judge_canary(canary, baseline, DEFAULTS), gate).outcome is GateOutcome.PASSED
    assert gate_of(judge_canary(harmed, baseline, DEFAULTS), gate).outcome is GateOutcome.BREACHED
    assert gate_of(judge_canary(harmed, baseline, loosened), gate).outcome is GateOutcome.PASSED


def test_false_alarms_that_are_rarer_need_more_evidence() -> None:
    canary, baseline = arms(World(slowness=1.2))
    rare = replace(DEFAULTS, false_alarms=1e-30)
    assert judge_canary(canary, baseline, DEFAULTS).verdict is TrialVerdict.BREACH
    assert judge_canary(canary, baseline, rare).verdict is TrialVerdict.PASS


def failing_too(pair: Pair) -> Pair:
    return replace(pair, shadow_failed=pair.user % 20 == 0)


def tying(pair: Pair) -> Pair:
    return replace(pair, tie_increase=0.1)


def unchanged(pair: Pair) -> Pair:
    return pair


@pytest.mark.parametrize(
    ("gate", "ways", "change", "bound", "loose"),
    [
        ("topk_overlap", {"noise": 30.0}, unchanged, "min_topk_overlap", 0.0),
        ("kendall", {"noise": 3.0}, unchanged, "min_kendall", -1.0),
        ("errors", {}, failing_too, "max_error_increase", 0.5),
        ("latency", {"slowness": 1.2}, unchanged, "max_latency_ratio", 1.5),
        ("ties", {}, tying, "max_tie_rate_increase", 0.2),
        ("score_ks", {"level": 1.0}, unchanged, "max_ks", 1.0),
        ("score_psi", {"level": 1.0}, unchanged, "max_psi", 20.0),
    ],
)
def test_each_gate_of_a_shadow_has_a_bound(
    gate: str, ways: dict[str, float], change: Callable[[Pair], Pair], bound: str, loose: float
) -> None:
    harmed = [change(each) for each in pairs(1, 600, **ways)]
    found = judge_shadow(harmed, DEFAULTS)
    assert gate_of(found, gate).outcome is GateOutcome.BREACHED
    assert found.verdict is TrialVerdict.BREACH
    loosened = with_bound(bound, loose)
    assert gate_of(judge_shadow(harmed, loosened), gate).outcome is GateOutcome.PASSED


def retrievals(overlap: float, num: int = 300) -> list[RetrievalPair]:
    """One for each user, around a mean overlap."""
    spread = np.random.default_rng(0).uniform(-0.1, 0.1, num)
    return [
        RetrievalPair(user, GROUPS[user % 2], min(max(overlap + more, 0.0), 1.0))
        for user, more in enumerate(spread.tolist())
    ]


def test_what_a_shadow_retrieves_has_a_bound_for_all_users_and_for_each_group() -> None:
    seen, bad = pairs(1, 600), retrievals(0.3)
    assert judge_shadow(seen, DEFAULTS, retrievals=retrievals(0.9)).verdict is TrialVerdict.PASS
    found = judge_shadow(seen, DEFAULTS, retrievals=bad)
    gate = gate_of(found, "recall_overlap")
    assert (found.verdict, gate.outcome) == (TrialVerdict.BREACH, GateOutcome.BREACHED)
    assert gate.value == pytest.approx(0.3, abs=0.02)
    assert "recall_overlap is 0.3" in found.reason
    loose = with_bound("min_recall_overlap", 0.2)
    assert judge_shadow(seen, loose, retrievals=bad).verdict is TrialVerdict.PASS
    of_group = [
        bad_one if good.group == GROUPS[0] else good
        for good, bad_one in zip(retrievals(0.9), bad, strict=True)
    ]
    harmed = judge_shadow(seen, DEFAULTS, retrievals=of_group)
    assert gate_of(harmed, "recall_overlap").outcome is GateOutcome.PASSED
    assert f"recall_overlap of group {GROUPS[0]} is" in harmed.reason


def test_few_retrievals_prove_nothing_and_none_need_not() -> None:
    seen = pairs(1, 600)
    few = judge_shadow(seen, DEFAULTS, retrievals=retrievals(0.3, 90))
    assert few.verdict is TrialVerdict.NO_DATA
    assert few.reason == "recall_overlap: 90 users, 200 are needed"
    names = {gate.name for gate in judge_shadow(seen, DEFAULTS).gates}
    assert "recall_overlap" not in names


def test_a_shadow_that_fails_with_the_active_one_harms_nothing() -> None:
    seen = [
        replace(each, active_failed=each.user % 4 == 0, shadow_failed=each.user % 4 == 0)
        for each in pairs(1, 600)
    ]
    assert judge_shadow(seen, DEFAULTS).verdict is TrialVerdict.PASS


def test_a_shadow_that_fails_at_once_hides_no_slowness() -> None:
    slow = pairs(1, 600, slowness=1.2)
    quick = [replace(each, shadow_failed=True, shadow_latency_s=1e-4) for each in slow[:200]]
    found = judge_shadow([*quick, *slow[200:]], DEFAULTS)
    assert gate_of(found, "latency").outcome is GateOutcome.BREACHED


def test_few_pairs_prove_nothing() -> None:
    assert judge_shadow(pairs(1, 150, noise=3.0), DEFAULTS).verdict is TrialVerdict.NO_DATA


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_samples", 1),
        ("min_samples", 200.5),
        ("min_group_samples", 0),
        ("top_k", 0),
        ("max_checks", 0),
        ("min_topk_overlap", 1.1),
        ("min_kendall", -2.0),
        ("min_recall_overlap", 1.1),
        ("max_psi", -0.1),
        ("max_psi", math.inf),
        ("max_ks", math.nan),
        ("max_tie_rate_increase", -0.1),
        ("max_calibration_shift", 2.0),
        ("max_agreement_shift", "0.1"),
        ("max_error_increase", True),
        ("max_latency_ratio", 0.9),
        ("false_alarms", 0.0),
        ("false_alarms", 1.0),
    ],
)
def test_a_bound_that_cannot_be_is_refused(field: str, value: object) -> None:
    wrong: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=field):
        Thresholds(**wrong)
