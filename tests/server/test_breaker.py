from __future__ import annotations

from rankloom_server.breaker import MAX_FAILURES, Breaker


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(MAX_FAILURES):
        assert not breaker.is_open
        breaker.failed()
    return breaker


def test_opens_after_failures_in_a_row() -> None:
    assert opened().is_open


def test_a_success_between_keeps_it_closed() -> None:
    breaker = Breaker()
    for _ in range(3 * MAX_FAILURES):
        breaker.failed()
        breaker.succeeded()
        assert not breaker.is_open


def test_one_failure_alone_opens_it() -> None:
    breaker = Breaker()
    assert [breaker.failed() for _ in range(MAX_FAILURES + 2)] == [
        *[False] * (MAX_FAILURES - 1),
        True,
        False,  # of a call that was on its way
        False,
    ]


def test_a_success_closes_it_and_counting_begins_anew() -> None:
    breaker = opened()
    breaker.succeeded()
    assert not breaker.is_open
    assert not breaker.failed()
