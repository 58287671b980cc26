"""Records of rankings, and how many are kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import kendalltau

from rankloom_adapters.rollout.agreement import kendall, recall_overlap, tie_rate, topk_overlap
from rankloom_adapters.rollout.evidence import (
    Evidence,
    Observation,
    Pair,
    Reply,
    compare,
    observe,
    observe_failure,
)
from rankloom_adapters.split import Arm

Floats = NDArray[np.float64]
FEW = st.integers(0, 4).map(float)  # few values, so that many are tied
LISTS = st.integers(2, 12).flatmap(
    lambda num: st.tuples(*[st.lists(FEW, min_size=num, max_size=num).map(np.array)] * 2)
)


def floats(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def test_tau_b_with_ties_by_hand() -> None:
    # Five of six pairs agree; one is tied in the first list, none in the second.
    one, other = floats(1, 2, 2, 3), floats(1, 2, 3, 4)
    assert kendall(one, other) == pytest.approx(5 / math.sqrt(5 * 6))
    assert kendall(one, -other) == pytest.approx(-5 / math.sqrt(5 * 6))
    assert kendall(one, one) == pytest.approx(1.0)


def test_a_constant_list_agrees_with_none() -> None:
    assert math.isnan(kendall(floats(1, 1, 1), floats(1, 2, 3)))
    assert math.isnan(kendall(floats(1), floats(2)))


@given(LISTS)
def test_tau_b_is_the_one_of_scipy(lists: tuple[Floats, Floats]) -> None:
    assert kendall(*lists) == pytest.approx(kendalltau(*lists)[0], nan_ok=True)


def test_ties_by_hand() -> None:
    assert tie_rate(floats(1, 2, 2, 3, 3, 3)) == pytest.approx(5 / 6)
    assert tie_rate(floats(1, 2, 3)) == 0.0
    assert tie_rate(floats(7)) == 0.0


def test_overlap_by_hand() -> None:
    one, other = floats(5, 4, 3, 2, 1), floats(5, 1, 3, 2, 4)
    assert topk_overlap(one, other, 3) == pytest.approx(2 / 3)
    assert topk_overlap(one, other, 10) == 1.0  # the lists are shorter than k
    assert topk_overlap(floats(1, 1, 1), floats(1, 1, 1), 2) == 1.0


def test_recall_overlap_is_the_share_that_is_retrieved_too() -> None:
    assert recall_overlap(["a", "b", "c", "d"], ["d", "x", "a"]) == 0.5
    assert recall_overlap(["a"], []) == 0.0


def test_a_ranking_is_reduced_to_figures() -> None:
    scores, tree_logits = floats(1.0, 3.0, 2.0), floats(0.0, 1.0, 2.0)
    seen = observe(7, "drama", 0.1, scores, tree_logits, floats(0.2, 0.6, 0.4))
    assert (seen.user, seen.group, seen.latency_s) == (7, "drama", 0.1)
    assert not seen.failed
    assert not seen.non_finite
    assert seen.score == pytest.approx(2.0)
    assert seen.contribution == pytest.approx(1.0)
    assert seen.spread == pytest.approx(math.sqrt(2 / 3))
    assert seen.agreement == pytest.approx(1 / 3)
    assert seen.probability == pytest.approx(0.4)
    assert seen.tie_rate == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.7e308])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_is_not_finite_has_failed(bad: float, index: int) -> None:
    lists = [floats(1.0, 2.0), floats(0.0, 1.0), floats(0.5, 0.5)]
    lists[index] = floats(bad, bad)
    seen = observe(7, "drama", 0.1, lists[0], lists[1], lists[2])
    assert seen == Observation(7, "drama", 0.1, failed=True, non_finite=True)


def test_a_failure_has_no_figures() -> None:
    seen = observe_failure(7, "drama", 0.1)
    assert seen.failed
    assert not seen.non_finite
    assert math.isnan(seen.score)


@pytest.mark.parametrize("latency_s", [-0.1, math.nan, math.inf])
def test_a_latency_is_a_time(latency_s: float) -> None:
    with pytest.raises(ValueError, match="measure it with a monotonic clock"):
        observe_failure(7, "drama", latency_s)
    with pytest.raises(ValueError, match="measure it with a monotonic clock"):
        Reply(latency_s, None)


@pytest.mark.parametrize("scores", [floats(), floats(1, 2), floats(1, 2, 3).reshape(1, 3)])
def test_lists_are_of_the_same_candidates(scores: Floats) -> None:
    one, reply = floats(1), Reply(0.1, floats(1))
    with pytest.raises(ValueError, match="one number per candidate"):
        observe(7, "drama", 0.1, scores, one, one)
    with pytest.raises(ValueError, match="one number per candidate"):
        compare(7, "drama", reply, Reply(0.1, scores))


def test_a_pair_says_how_both_agree() -> None:
    active, shadow = Reply(0.1, floats(4, 3, 2, 1)), Reply(0.2, floats(4, 2, 2, 1))
    pair = compare(7, "drama", active, shadow, top_k=2)
    assert (pair.active_latency_s, pair.shadow_latency_s) == (0.1, 0.2)
    assert pair.overlap == 1.0
    assert pair.kendall == pytest.approx(5 / math.sqrt(5 * 6))
    assert (pair.active_score, pair.shadow_score) == (2.5, 2.25)
    assert pair.tie_increase == 0.5
    assert compare(7, "drama", shadow, active).tie_increase == -0.5
    assert not any([pair.active_failed, pair.shadow_failed, pair.non_finite])


@pytest.mark.parametrize(
    ("active", "shadow", "expected"),
    [
        (floats(1, 2), None, (False, True, False)),
        (None, floats(1, 2), (True, False, False)),
        (floats(1, 2), floats(1, math.nan), (False, True, True)),
        (floats(1, math.inf), floats(1, 2), (True, False, False)),
    ],
)
def test_a_pair_says_who_failed(
    active: Floats | None, shadow: Floats | None, expected: tuple[bool, bool, bool]
) -> None:
    pair = compare(7, "drama", Reply(0.1, active), Reply(0.1, shadow))
    assert (pair.active_failed, pair.shadow_failed, pair.non_finite) == expected
    assert math.isnan(pair.kendall)


def test_the_newest_are_kept_of_each_arm() -> None:
    evidence = Evidence(max_observations=3)
    for number in range(5):
        evidence.add(Arm.CANARY, Observation(number, "drama", 0.1))
        evidence.add_pair(Pair(number, "drama", 0.1, 0.1))
    evidence.add(Arm.BASELINE, Observation(9, "drama", 0.1))
    assert [each.user for each in evidence.observations(Arm.CANARY)] == [2, 3, 4]
    assert [each.user for each in evidence.observations(Arm.BASELINE)] == [9]
    assert [each.user for each in evidence.pairs] == [2, 3, 4]


def test_what_was_taken_does_not_change() -> None:
    evidence = Evidence()
    before = evidence.observations(Arm.CANARY), evidence.pairs
    evidence.add(Arm.CANARY, Observation(1, "drama", 0.1))
    evidence.add_pair(Pair(1, "drama", 0.1, 0.1))
    assert before == ((), ())


def test_the_rest_is_no_evidence() -> None:
    with pytest.raises(ValueError, match="arm is 'rest'; only canary and baseline"):
        Evidence().add(Arm.REST, Observation(1, "drama", 0.1))


def test_there_must_be_room() -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Evidence(max_observations=0)
