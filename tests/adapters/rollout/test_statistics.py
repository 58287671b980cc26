"""Formulas against values by hand, tails against scipy, and the rate of false alarms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from rankloom_adapters.rollout.statistics import (
    Finding,
    Sample,
    chi_square_tail,
    fisher_tail,
    kolmogorov_smirnov,
    mean_above,
    mean_below,
    mean_increase,
    mean_shift,
    population_stability,
    rate_excess,
    rate_increase,
    t_tail,
)

NUM_REPEATS = 4_000
LEVEL = 0.02
SAMPLES = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=40).map(np.array)


def floats(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def test_welch_by_hand() -> None:
    # Variances 1 and 4 of three values each: the error is √(1/3 + 4/3), the freedom 2.94.
    found = mean_increase(floats(4, 5, 6), floats(0, 2, 4))
    assert found.value == 3.0
    expected = stats.t.sf(3.0 / math.sqrt(5 / 3), (5 / 3) ** 2 / ((1 / 9 + 16 / 9) / 2))
    assert found.p_value == pytest.approx(expected, rel=0.05)


@given(SAMPLES, SAMPLES)
def test_a_shift_is_tested_on_both_sides(one: Sample, other: Sample) -> None:
    ours, theirs = mean_shift(one, other), mean_shift(other, one)
    assert ours.value == -theirs.value
    assert ours.p_value == pytest.approx(theirs.p_value, abs=1e-12)
    assert 0.0 <= ours.p_value <= 1.0


def test_a_mean_against_a_bound() -> None:
    values = floats(0.4, 0.5, 0.6)
    assert mean_below(values, 0.5).p_value == pytest.approx(0.5)
    assert mean_below(values, 0.9).p_value < 0.02
    assert mean_above(values, 0.9).p_value > 0.98
    assert mean_below(values, 0.9).value == pytest.approx(0.5)


def test_rounding_is_no_difference() -> None:
    tenths = np.full(30, 0.1) * 3  # a little more than 0.3
    assert mean_above(tenths, 0.3).p_value > 0.4
    assert mean_increase(tenths, np.full(30, 0.3)).p_value > 0.4


def test_rates_by_hand() -> None:
    # Three of four against none of four: one choice in 4 + 4 · 0 … of C(8, 3) = 56.
    found = rate_increase(floats(1, 1, 1, 0), floats(0, 0, 0, 0))
    assert found.value == 0.75
    assert found.p_value == pytest.approx(4 / 56)


@pytest.mark.parametrize("num_users", [(50, 50), (900, 100), (100, 900)])
def test_failing_always_is_found_in_arms_of_any_size(num_users: tuple[int, int]) -> None:
    ours, theirs = np.ones(num_users[0]), np.zeros(num_users[1])
    assert rate_increase(ours, theirs).p_value < 1e-20
    assert rate_increase(theirs, ours).p_value == pytest.approx(1.0)


def test_signs_by_hand() -> None:
    found = rate_excess(floats(1, 1, 1, -1, 0, 0))
    assert found.value == pytest.approx(2 / 6)
    assert found.p_value == pytest.approx(5 / 16)  # at least 3 heads in 4 tosses
    assert rate_excess(floats(0, 0)).p_value == 1.0


def test_kolmogorov_smirnov_by_hand() -> None:
    found = kolmogorov_smirnov(floats(1, 2, 3, 4), floats(3, 4, 5, 6))
    assert found.value == 0.5
    assert kolmogorov_smirnov(np.zeros(200), np.ones(200)) == Finding(1.0, 2 * math.exp(-200))


@given(SAMPLES, SAMPLES)
def test_kolmogorov_smirnov_is_the_one_of_scipy(one: Sample, other: Sample) -> None:
    found, expected = kolmogorov_smirnov(one, other), stats.ks_2samp(one, other, method="asymp")
    assert found.value == pytest.approx(expected[0])


def test_population_stability_by_hand() -> None:
    # Two bins, cut at 0.5: 30 and 10 of ours, 20 and 20 of theirs, each and a half more.
    ours, theirs = np.repeat([0.0, 1.0], [30, 10]), np.repeat([0.0, 1.0], [20, 20])
    p, q = 30.5 / 41, 0.5
    index = (p - q) * math.log(p / q) + (q - p) * math.log((1 - p) / q)
    found = population_stability(ours, theirs)
    assert found.value == pytest.approx(index - (1 / 40 + 1 / 40))
    assert found.p_value == pytest.approx(stats.chi2.sf(index / (1 / 40 + 1 / 40), 1))


def test_chance_adds_nothing_to_population_stability() -> None:
    random = np.random.default_rng(0)
    found = [population_stability(*random.standard_normal((2, 300))).value for _ in range(300)]
    raw = 9 * (1 / 300 + 1 / 300)
    assert np.mean(found) < 0.5 * raw  # 0 if negative values were not cut off


@pytest.mark.parametrize("freedom", range(1, 10))
@pytest.mark.parametrize("value", [0.0, 0.3, 5.0, 60.0])
def test_chi_square_tail(value: float, freedom: int) -> None:
    assert chi_square_tail(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom))


@pytest.mark.parametrize("t", [-4.0, -1.0, 0.0, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("freedom", [10.0, 57.3, 2_000.0])
def test_t_tail(t: float, freedom: float) -> None:
    assert t_tail(t, 1.0, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=0.03)


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_fisher_tail(num_ours: int, num_theirs: int, data: st.DataObject) -> None:
    ours, theirs = data.draw(st.integers(0, num_ours)), data.draw(st.integers(0, num_theirs))
    table = [[ours, num_ours - ours], [theirs, num_theirs - theirs]]
    expected = stats.fisher_exact(table, alternative="greater")[1]
    assert fisher_tail(ours, num_ours, theirs, num_theirs) == pytest.approx(expected)


@pytest.mark.parametrize(
    "test", [mean_increase, mean_shift, rate_increase, kolmogorov_smirnov, population_stability]
)
@pytest.mark.parametrize("num_users", [(60, 60), (200, 300)])
def test_chance_alone_alarms_no_more_often_than_it_may(
    test: Callable[[Sample, Sample], Finding], num_users: tuple[int, int]
) -> None:
    random = np.random.default_rng(3)
    draws = (
        [random.lognormal(0.0, 0.5, size=num) for num in num_users] for _ in range(NUM_REPEATS)
    )
    alarms = sum(test(ours, theirs).p_value < LEVEL for ours, theirs in draws)
    assert alarms / NUM_REPEATS <= LEVEL + 3 * math.sqrt(LEVEL / NUM_REPEATS)
