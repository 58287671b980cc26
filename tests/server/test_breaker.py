from __future__ import annotations

import pytest

from rankloom_server.breaker import COOLDOWN_S, MAX_FAILURES, Breaker


class BreakerClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> BreakerClock:
    return BreakerClock()


def opened(clock: BreakerClock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(MAX_FAILURES):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_opens_after_failures_in_a_row(clock: BreakerClock) -> None:
    assert not opened(clock).allows()


def test_a_success_between_keeps_it_closed(clock: BreakerClock) -> None:
    breaker = Breaker(clock)
    for _ in range(3 * MAX_FAILURES):
        breaker.failed()
        breaker.succeeded()
        assert breaker.allows()


def test_lets_one_probe_through_per_cooldown(clock: BreakerClock) -> None:
    breaker = opened(clock)
    for _ in range(3):  # also where a probe never ends
        clock.now += COOLDOWN_S
        assert [breaker.allows() for _ in range(3)] == [True, False, False]


def test_a_probe_that_succeeds_closes_it(clock: BreakerClock) -> None:
    breaker = opened(clock)
    clock.now += COOLDOWN_S
    assert breaker.allows()
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(3))


def test_a_probe_that_fails_keeps_it_open_for_a_whole_cooldown(clock: BreakerClock) -> None:
    breaker = opened(clock)
    clock.now += COOLDOWN_S
    assert breaker.allows()
    clock.now += COOLDOWN_S / 2
    breaker.failed()
    clock.now += COOLDOWN_S * 0.99
    assert not breaker.allows()
