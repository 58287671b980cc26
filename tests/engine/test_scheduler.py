"""Micro-batches: the token budget, pieces of a job, deadlines, and fair shares of the callers."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rankloom_engine.scheduler import FairQueue, Job, Kind, MicroBatch, Piece, Scheduler

BUDGET, PIECE = 100, 40
sizes = st.one_of(st.integers(1, 12), st.integers(1, 120))


def filled(*jobs: Job, budget: int = BUDGET, piece: int = PIECE) -> FairQueue:
    queue = FairQueue(budget, piece)
    for job in jobs:
        queue.add(job)
    return queue


def drained(queue: FairQueue) -> Iterator[MicroBatch]:
    while len(queue):
        yield queue.take(0.0)


class AnyUse(RuleBasedStateMachine):
    """Jobs come, go and expire in any order; ``left`` says what has still to be taken."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(BUDGET, PIECE)
        self.keys = itertools.count()
        self.now = 0.0
        self.left: dict[int, tuple[Job, int]] = {}

    @rule(
        prefix=st.integers(0, 120),
        candidates=st.lists(sizes, min_size=1, max_size=12),
        wait=st.one_of(st.just(inf), st.integers(-1, 9)),
        caller=st.sampled_from("abc"),
    )
    def add(self, prefix: int, candidates: list[int], wait: float, caller: str) -> None:
        job = Job(next(self.keys), prefix, tuple(candidates), self.now + wait, caller)
        self.queue.add(job)
        self.left[job.key] = job, 0

    @precondition(lambda self: bool(self.left))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.left)))
        self.queue.remove(key)
        self.queue.remove(key)  # now unknown, and ignored
        del self.left[key]

    @rule(later=st.integers(0, 3))
    def take(self, later: int) -> None:
        self.now += later
        batch = self.queue.take(self.now)
        assert batch.expired == tuple(
            key for key, (job, _) in self.left.items() if job.deadline <= self.now
        )
        for key in batch.expired:
            del self.left[key]
        self.check_order(batch.pieces)
        room = BUDGET
        for piece in batch.pieces:
            self.check_piece(piece, room)
            room -= piece.num_tokens
        self.check_full(batch.pieces, room)
        for piece in batch.pieces:
            self.left[piece.key] = self.left[piece.key][0], piece.stop
            if piece.last:
                del self.left[piece.key]

    def check_piece(self, piece: Piece, room: int) -> None:
        """It goes on where the last one ended, pays the prefix once, and cannot be longer."""
        job, start = self.left[piece.key]
        taken = job.candidate_tokens[start : piece.stop]
        prefix = job.prefix_tokens if start == 0 else 0
        assert piece.start == start < piece.stop <= len(job.candidate_tokens)
        assert piece.num_tokens == prefix + sum(taken)
        assert piece.last == (piece.stop == len(job.candidate_tokens))
        limit = min(PIECE, room - prefix)
        assert sum(taken) <= limit or len(taken) == 1
        if not piece.last:
            assert sum(job.candidate_tokens[start : piece.stop + 1]) > limit

    def check_order(self, pieces: tuple[Piece, ...]) -> None:
        """Each job once, and the earliest deadline first within a caller."""
        for caller in "abc":
            mine = [job for job, _ in self.left.values() if job.caller == caller]
            mine.sort(key=lambda job: (job.deadline, job.key))
            keys = [p.key for p in pieces if self.left[p.key][0].caller == caller]
            assert keys == [job.key for job in mine][: len(keys)]

    def check_full(self, pieces: tuple[Piece, ...], room: int) -> None:
        """The budget is kept but for a lone candidate, and something that waits did not fit."""
        assert room >= 0 or (len(pieces) == 1 and pieces[0].stop == pieces[0].start + 1)
        waits = self.left.keys() - {piece.key for piece in pieces}
        if waits:
            assert pieces
            assert any(self.least_tokens(key) > room for key in waits)

    def least_tokens(self, key: int) -> int:
        job, start = self.left[key]
        return job.candidate_tokens[start] + (job.prefix_tokens if start == 0 else 0)

    @rule()
    def drain(self) -> None:
        for _ in range(sum(len(job.candidate_tokens) for job, _ in self.left.values())):
            self.take(0)
        assert not self.left

    @invariant()
    def counts_what_waits(self) -> None:
        assert len(self.queue) == len(self.left)


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_a_long_job_runs_in_pieces_and_pays_its_prefix_once() -> None:
    queue = filled(Job(7, 30, (20, 20, 21, 20, 20)))
    assert [batch.pieces for batch in drained(queue)] == [
        (Piece(7, 0, 2, 70, False),),
        (Piece(7, 2, 3, 21, False),),
        (Piece(7, 3, 5, 40, True),),
    ]
    assert queue.take(0.0) == MicroBatch((), ())


def test_the_budget_may_be_filled_but_not_passed() -> None:
    for num_tokens, num_pieces in ((BUDGET - 70, 2), (BUDGET - 69, 1)):
        queue = filled(Job(0, 60, (10,)), Job(1, 0, (num_tokens,)))
        assert len(queue.take(0.0).pieces) == num_pieces


def test_one_candidate_over_the_budget_runs_alone() -> None:
    queue = filled(Job(0, 0, (10,), 1.0), Job(1, 90, (500, 1), 2.0), Job(2, 0, (10,), 3.0))
    assert [[(p.key, p.num_tokens) for p in batch.pieces] for batch in drained(queue)] == [
        [(0, 10)],
        [(1, 590)],
        [(1, 1), (2, 10)],
    ]


def test_a_small_job_does_not_overtake_one_that_no_longer_fits() -> None:
    queue = filled(Job(0, 60, (10,)), Job(1, 60, (10,)), Job(2, 0, (10,)))
    assert [piece.key for piece in queue.take(0.0).pieces] == [0]
    assert [piece.key for piece in queue.take(0.0).pieces] == [1, 2]


def test_a_job_may_expire_or_go_between_its_pieces() -> None:
    queue = filled(Job(0, 0, (40, 40), 5.0), Job(1, 0, (40, 40)))
    assert [piece.key for piece in queue.take(0.0).pieces] == [0, 1]
    queue.remove(1)
    assert queue.take(5.0) == MicroBatch((), (0,))
    assert not len(queue)


def test_equal_deadlines_keep_the_order_of_arrival() -> None:
    queue = filled(*(Job(key, 0, (1,), 9.0) for key in (3, 1, 2)), Job(0, 0, (1,), 8.0))
    assert [piece.key for piece in queue.take(0.0).pieces] == [0, 3, 1, 2]


def test_bad_jobs_are_refused() -> None:
    for prefix, candidates in ((0, ()), (0, (3, 0)), (-1, (3,))):
        with pytest.raises(ValueError, match="job 4"):
            Job(4, prefix, candidates)
    with pytest.raises(ValueError, match="job 4 waits already"):
        filled(Job(4, 0, (3,)), Job(4, 0, (3,)))


class Shares:
    """Callers that wait for jobs, and what each take serves them."""

    def __init__(self, max_piece_tokens: int = BUDGET) -> None:
        self.queue = FairQueue(BUDGET, max_piece_tokens)
        self.keys = itertools.count()
        self.waiting: dict[int, str] = {}

    def add(self, caller: str, *jobs: tuple[int, ...], deadline: float = inf) -> None:
        for candidates in jobs:
            key = next(self.keys)
            self.waiting[key] = caller
            self.queue.add(Job(key, 0, candidates, deadline, caller))

    def take(self) -> list[tuple[str, int]]:
        """(caller, tokens) of each piece."""
        pieces = self.queue.take(0.0).pieces
        served = [(self.waiting[piece.key], piece.num_tokens) for piece in pieces]
        for piece in pieces:
            if piece.last:
                del self.waiting[piece.key]
        return served


many = st.lists(st.tuples(st.integers(1, BUDGET)), min_size=5, max_size=40)


@settings(deadline=None)
@given(many, st.integers(0, 8), st.integers(1, BUDGET))
def test_a_flood_delays_a_single_job_by_one_micro_batch(
    flood: list[tuple[int]], num_before: int, small: int
) -> None:
    shares = Shares()
    shares.add("flood", *flood * 10, deadline=1.0)  # before the single job's
    for _ in range(num_before):
        shares.take()
    shares.add("small", (small,))
    served = shares.take() + shares.take()
    assert served.index(("small", small)) <= 1  # so it waits for one piece, of one budget at most


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


def test_a_job_that_cannot_use_its_share_earns_no_credit() -> None:
    shares = Shares(max_piece_tokens=10)
    shares.add("long", (10,) * 100)  # one piece of 10 tokens in each batch, however much is free
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


def explanation(key: int, num_tokens: int = 1, deadline: float = inf) -> Job:
    return Job(key, 0, (num_tokens,), deadline, kind=Kind.EXPLANATION)


def test_explanations_wait_until_no_ranking_does() -> None:
    """Whoever came first, and however early an explanation's deadline is."""
    scheduler = Scheduler(BUDGET, PIECE)
    for job in (
        explanation(0, deadline=1.0),
        Job(1, 50, (40, 40)),
        explanation(2),
        Job(3, 5, (9,)),
    ):
        scheduler.add(job)
    taken = [scheduler.take(0.0) for _ in range(3)]
    assert [(batch.kind, [piece.key for piece in batch.pieces]) for batch in taken] == [
        (Kind.RANKING, [1]),
        (Kind.RANKING, [1, 3]),
        (Kind.EXPLANATION, [0, 2]),
    ]
    assert not len(scheduler)


def test_an_explanations_step_is_not_cut_into_pieces() -> None:
    scheduler = Scheduler(BUDGET, PIECE)
    scheduler.add(explanation(0, PIECE + 1))
    scheduler.add(explanation(1, BUDGET - PIECE - 1))
    assert [piece.key for piece in scheduler.take(0.0).pieces] == [0, 1]


def test_expired_rankings_do_not_hold_explanations_up() -> None:
    scheduler = Scheduler(BUDGET, PIECE)
    for job in (Job(0, 0, (1,), 1.0), explanation(1), explanation(2, deadline=1.0)):
        scheduler.add(job)
    assert scheduler.take(1.0) == MicroBatch((), (0,))
    assert scheduler.take(1.0) == MicroBatch((Piece(1, 0, 1, 1, True),), (2,), Kind.EXPLANATION)


def test_jobs_of_both_kinds_can_leave() -> None:
    scheduler = Scheduler(BUDGET, PIECE)
    for job in (Job(0, 0, (1,)), explanation(1)):
        scheduler.add(job)
    scheduler.remove(1)
    scheduler.remove(7)  # unknown, and ignored
    assert len(scheduler) == 1
    scheduler.remove(0)
    assert scheduler.take(0.0).pieces == ()
