from __future__ import annotations

import pytest

from rankloom_engine.throughput import RESERVE, Throughput


def learnt(*passes: tuple[int, float, bool]) -> float:
    """Tokens a second after passes of tokens, seconds, and whether they were full."""
    throughput = Throughput()
    for num_tokens, seconds, is_full in passes:
        throughput.learn(num_tokens, seconds, is_full=is_full)
    seconds = throughput.seconds(1000)
    return RESERVE * 1000 / seconds if seconds else 0.0


def test_nothing_is_known_before_the_first_full_pass() -> None:
    assert learnt() == learnt((10, 1.0, False)) == 0.0


def test_a_full_pass_moves_the_mean() -> None:
    assert learnt((1000, 1.0, True)) == pytest.approx(1000)
    assert learnt((1000, 1.0, True), (1000, 0.5, True)) == pytest.approx(1200)
    assert learnt((1000, 1.0, True), (1000, 2.0, True)) == pytest.approx(900)


def test_a_small_pass_raises_the_estimate_and_never_lowers_it() -> None:
    assert learnt((1000, 1.0, True), (10, 1.0, False)) == pytest.approx(1000)
    assert learnt((1000, 1.0, True), (10, 0.005, False)) == pytest.approx(1200)


def test_one_slow_pass_does_not_ruin_the_estimate() -> None:
    assert learnt((1000, 1.0, True), (1000, 1e6, True)) > 700


def test_a_clock_that_stood_still_teaches_nothing() -> None:
    assert learnt((1000, 0.0, True)) == 0.0
