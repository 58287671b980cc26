from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from rankloom_training.metrics import (
    Estimate,
    auc,
    auc_difference,
    average_precision,
    evaluate,
    expected_calibration_error,
    mean_auc_difference,
    mean_uauc_difference,
    ndcg,
    rows_by_user,
    uauc_difference,
)

seeds = st.integers(0, 2**32 - 1)
Labels = list[int]


def labels(values: Labels) -> np.ndarray:
    return np.array(values, dtype=np.bool_)


def falling(num: int) -> np.ndarray:
    return -np.arange(num, dtype=np.float64)


def random_rows(seed: int, num: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    user, label = random.integers(0, 12, num), random.random(num) < 0.5
    return user, label, label + random.normal(size=num)


@settings(deadline=None)
@given(seeds, st.integers(2, 60), st.booleans())
def test_auc_is_sklearns_with_and_without_ties(seed: int, num: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    label = random.random(num) < 0.5
    score = random.integers(0, 4, num).astype(float) if ties else random.normal(size=num)
    assume(label.any() and not label.all())
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score))
    assert auc(label, score.astype(np.float32)) == pytest.approx(auc(label, score), abs=1e-6)


@pytest.mark.parametrize(
    ("label", "score", "expected"),
    [
        ([1, 0], [2, 1], 1.0),
        ([1, 0], [1, 2], 0.0),
        ([1, 0], [1, 1], 0.5),
        ([1, 0, 1, 0], [3, 2, 2, 1], 0.875),
    ],
)
def test_auc_by_hand(label: Labels, score: list[float], expected: float) -> None:
    assert auc(labels(label), np.array(score)) == expected


@pytest.mark.parametrize("label", [[], [1], [0], [1, 1], [0, 0]])
def test_auc_of_one_class_is_nan(label: Labels) -> None:
    assert math.isnan(auc(labels(label), falling(len(label))))


@settings(deadline=None)
@given(seeds, st.integers(2, 15))
def test_ndcg_is_sklearns(seed: int, num: int) -> None:
    random = np.random.default_rng(seed)
    label, score = random.random(num) < 0.4, random.permutation(num).astype(float)
    assume(label.any())
    assert ndcg(label, score) == pytest.approx(ndcg_score([label], [score], k=5))


DISCOUNT = [1 / math.log2(rank + 2) for rank in range(5)]


@pytest.mark.parametrize(
    ("label", "gain", "precision"),
    [
        ([1, 0, 0], 1.0, 1.0),
        ([0, 1, 0], DISCOUNT[1], 0.5),
        ([0, 0, 0, 0, 0, 1], 0.0, 0.0),
        ([0, 0, 0], 0.0, 0.0),
        ([1, 1, 1, 1, 1, 1, 1], 1.0, 5 / 7),
        ([1, 0, 1, 0, 0, 0, 1], (1 + DISCOUNT[2]) / sum(DISCOUNT[:3]), (1 + 2 / 3) / 3),
        ([1], 1.0, 1.0),
    ],
    ids=str,
)
def test_ndcg_and_map_by_hand(label: Labels, gain: float, precision: float) -> None:
    rows = labels(label), falling(len(label))
    assert ndcg(*rows) == pytest.approx(gain)
    assert average_precision(*rows) == pytest.approx(precision)


def test_ties_keep_the_order_of_rows() -> None:
    same = np.zeros(6)
    assert ndcg(labels([1, 0, 0, 0, 0, 0]), same) == 1.0
    assert ndcg(labels([0, 0, 0, 0, 0, 1]), same) == 0.0
    assert average_precision(labels([0, 1, 0, 0, 0, 0]), same) == 0.5


def test_means_are_over_eligible_users() -> None:
    user = np.array([0, 0, 1, 1, 2, 3, 3, 3])
    label = labels([1, 0, 1, 1, 1, 0, 0, 1])
    score = np.array([2.0, 1.0, 1.0, 2.0, 5.0, 3.0, 2.0, 1.0])
    found = evaluate(user, label, score)
    assert found.num_eligible == 2
    assert found.auc.value == pytest.approx(roc_auc_score(label, score))
    assert found.uauc.value == pytest.approx((1.0 + 0.0) / 2)
    assert found.ndcg5.value == pytest.approx((1.0 + 1.0 + DISCOUNT[2]) / 3)
    assert found.map5.value == pytest.approx((1.0 + 1.0 + 1 / 3) / 3)


def test_rows_of_a_user_need_not_be_adjacent() -> None:
    user, label, score = random_rows(3)
    order = np.argsort(user, kind="stable")
    assert evaluate(user, label, score) == evaluate(user[order], label[order], score[order])
    assert [sorted(set(user[rows].tolist())) for rows in rows_by_user(user)] == [
        [one] for one in sorted(set(user.tolist()))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_intervals_contain_the_value_and_are_reproducible(seed: int) -> None:
    rows = random_rows(seed)
    found = evaluate(*rows)
    assert found == evaluate(*rows)
    for estimate in (found.auc, found.uauc, found.ndcg5, found.map5):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.low < estimate.high
    other = evaluate(*rows, seed=1)
    assert other.auc.value == found.auc.value
    assert other.auc != found.auc


def test_the_bootstrap_is_over_users_and_not_over_rows() -> None:
    """Copies of a user's rows do not narrow the interval."""
    user, label, score = random_rows(8)
    once = evaluate(user, label, score).auc
    copied = evaluate(np.tile(user, 5), np.tile(label, 5), np.tile(score, 5)).auc
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)


@pytest.mark.parametrize("decimals", [0, 9], ids=["ties", "no ties"])
def test_the_interval_is_that_of_the_rows_of_drawn_users(decimals: int) -> None:
    user, label, score = random_rows(5)
    score = np.round(score, decimals)
    groups = rows_by_user(user)
    draws = np.random.default_rng(0).integers(0, len(groups), (1000, len(groups)))
    rows = [np.concatenate([groups[each] for each in draw]) for draw in draws]
    naive = np.quantile([auc(label[each], score[each]) for each in rows], [0.025, 0.975])
    found = evaluate(user, label, score).auc
    assert (found.low, found.high) == pytest.approx(tuple(naive))


def test_without_eligible_users_the_mean_is_nan() -> None:
    found = evaluate(np.arange(4), labels([1, 0, 1, 0]), falling(4))
    assert found.num_eligible == 0
    assert all(math.isnan(value) for value in (found.uauc.value, found.uauc.low))
    assert all(math.isnan(value) for value in (found.ndcg5.value, found.map5.value))


def test_the_paired_difference() -> None:
    user, label, score = random_rows(2)
    noise = np.random.default_rng(0).normal(size=len(user))
    found = auc_difference(user, label, score, noise)
    assert found.value == pytest.approx(auc(label, score) - auc(label, noise))
    assert 0 < found.low <= found.value <= found.high
    assert auc_difference(user, label, score, score) == Estimate(0.0, 0.0, 0.0)
    back = auc_difference(user, label, noise, score)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_the_paired_difference_of_several_seeds_is_the_mean_of_theirs() -> None:
    user, label, score = random_rows(2)
    random = np.random.default_rng(0)
    pairs = [(score + 0.1 * random.normal(size=len(user)), score) for _ in range(3)]
    for single, mean in (
        (auc_difference, mean_auc_difference),
        (uauc_difference, mean_uauc_difference),
    ):
        each = [single(user, label, *pair) for pair in pairs]
        found = mean(user, label, pairs)
        assert found.value == pytest.approx(np.mean([one.value for one in each]))
        assert found.low <= found.value <= found.high
        widths = [one.high - one.low for one in each]
        assert found.high - found.low < max(widths), "what is no seed's own averages out"
        assert mean(user, label, pairs[:1]) == each[0]


def test_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    probability = np.array([0.1, 0.2, 0.7, 0.8, 1.0])
    label = np.array([False, True, True, False, True])
    # Two bins: |1 − 0.3| and |2 − 2.5|, over five rows.
    found = expected_calibration_error(label, probability, bins=2)
    assert found == pytest.approx((0.7 + 0.5) / 5)
