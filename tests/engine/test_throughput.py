from __future__ import annotations

import pytest

from rankloom_engine.throughput import Throughput


def after(*passes: tuple[int, float, bool]) -> Throughput:
    """After passes of tokens, seconds, and whether they were full."""
    throughput = Throughput()
    for num_tokens, seconds, is_full in passes:
        throughput.learn(num_tokens, seconds, is_full=is_full)
    return throughput


def test_nothing_is_known_before_the_first_full_pass() -> None:
    assert after().seconds(1000) == after((10, 1.0, False)).seconds(1000) == 0.0
    assert after((1000, 0.0, True)).seconds(1000) == 0.0, "the clock stood still"


def test_a_full_pass_moves_the_mean_and_its_deviation() -> None:
    assert after((1000, 1.0, True)).seconds(1000) == pytest.approx(1.1)
    faster = after((1000, 1.0, True), (1000, 0.5, True))  # 1200 a second, deviation 0.2
    assert faster.seconds(1200) == pytest.approx(1.4)
    slower = after((1000, 1.0, True), (1000, 2.0, True))  # 900 a second, deviation 0.1
    assert slower.seconds(900) == pytest.approx(1.2)


def test_a_small_pass_raises_the_estimate_and_never_lowers_it() -> None:
    assert after((1000, 1.0, True), (10, 1.0, False)).seconds(1000) == pytest.approx(1.1)
    assert after((1000, 1.0, True), (10, 0.005, False)).seconds(1200) == pytest.approx(1.1)


def test_one_slow_pass_does_not_ruin_the_estimate() -> None:
    assert after((1000, 1.0, True), (1000, 1e6, True)).seconds(1000) < 2.0


def test_the_reserve_has_a_limit() -> None:
    """Else a machine whose speed varies would refuse everything."""
    passes = [(1000, (0.1, 10.0)[number % 2], True) for number in range(50)]
    found = after(*passes)
    assert 2.0 * 1000 / 10_000 < found.seconds(1000) < 2.0 * 1000 / 100
