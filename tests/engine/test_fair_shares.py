"""Fair shares of the callers: nobody starves, and idleness earns nothing."""

from __future__ import annotations

import itertools
import tracemalloc
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.queues import BUDGET
from rankloom_engine.scheduler import FairQueue, Sequence


class Shares:
    """Callers that wait for sequences, and what each micro-batch gives them."""

    def __init__(self, max_chunk_tokens: int = BUDGET) -> None:
        self.queue: FairQueue[Sequence] = FairQueue(BUDGET, max_chunk_tokens)
        self.waiting: dict[Sequence, str] = {}

    def add(self, caller: str, *sequences: tuple[int, ...], deadline: float = inf) -> None:
        for candidates in sequences:
            sequence = Sequence(0, candidates, deadline, caller)
            self.waiting[sequence] = caller
            self.queue.add(sequence)

    def take(self) -> list[tuple[str, int]]:
        """(caller, tokens) of each chunk."""
        chunks = self.queue.schedule(0.0).chunks
        served = [(self.waiting[chunk.sequence], chunk.num_tokens) for chunk in chunks]
        for chunk in chunks:
            if chunk.is_last:
                del self.waiting[chunk.sequence]
        return served


many = st.lists(st.tuples(st.integers(1, BUDGET)), min_size=5, max_size=40)


@settings(deadline=None)
@given(many, st.integers(0, 8), st.integers(1, BUDGET))
def test_a_flood_delays_a_single_sequence_by_one_micro_batch(
    flood: list[tuple[int]], num_before: int, small: int
) -> None:
    shares = Shares()
    shares.add("flood", *flood * 10, deadline=1.0)  # before the single one's
    for _ in range(num_before):
        shares.take()
    shares.add("small", (small,))
    served = shares.take() + shares.take()
    assert served.index(("small", small)) <= 1  # so it waits for one chunk, of one budget at most


@settings(deadline=None)
@given(many, many, st.integers(0, 8))
def test_callers_with_work_are_served_alike_and_idleness_earns_nothing(
    busy: list[tuple[int]], idle: list[tuple[int]], num_before: int
) -> None:
    shares = Shares()
    shares.add("idle", (1,))
    shares.add("busy", *busy * 10)
    for _ in range(num_before):
        shares.take()
    shares.add("idle", *idle * 10)
    ahead = 0
    while True:
        for caller, num_tokens in shares.take():
            ahead += num_tokens if caller == "idle" else -num_tokens
        if set(shares.waiting.values()) != {"idle", "busy"}:
            break
        assert abs(ahead) <= max(busy)[0] + max(idle)[0]


def test_a_sequence_that_cannot_use_its_share_earns_no_credit() -> None:
    shares = Shares(max_chunk_tokens=10)
    shares.add("long", (10,) * 100)  # one chunk of 10 tokens in each batch, however much is free
    shares.add("flood", *[(10,)] * 500)
    for _ in range(20):
        assert [caller for caller, _ in shares.take()].count("long") == 1
    shares.add("long", *[(10,)] * 100)
    shares.add("late", *[(10,)] * 100)
    for _ in range(5):
        served = [caller for caller, _ in shares.take()]
        assert all(3 <= served.count(caller) <= 4 for caller in ("long", "flood", "late"))


@pytest.mark.parametrize("num_callers", [3, 1000])
def test_callers_that_leave_and_return_do_not_starve_one_that_stays(num_callers: int) -> None:
    shares = Shares()
    arriving = (f"caller {n % num_callers}" for n in itertools.count())
    shares.add("stays", (BUDGET,), (BUDGET,))
    shares.add(next(arriving), (BUDGET,))
    served: list[str] = []
    for _ in range(8):  # one more always waits than a batch holds
        shares.add(next(arriving), (BUDGET,))
        served += [caller for caller, _ in shares.take()]
    assert served.count("stays") == 2


def test_callers_without_work_take_no_memory() -> None:
    shares = Shares()
    tracemalloc.start()
    try:
        for n in range(3000):
            shares.add(f"caller {n}", (1,))
            shares.take()
        cached, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cached < 50_000  # bytes: 3000 callers would need ten times as much
