"""Micro-batches: the token budget, chunks, deadlines, and the kinds of work."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.queues import BUDGET, CHUNK, drained, filled, scheduled
from rankloom_engine.scheduler import (
    Chunk,
    FairQueue,
    Kind,
    MicroBatch,
    Scheduler,
    Sequence,
)
from rankloom_engine.throughput import Throughput

sizes = st.one_of(st.integers(1, 12), st.integers(1, 120))


class AnyUse(RuleBasedStateMachine):
    """Sequences come, go and expire in any order; ``left``: each one's next candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Sequence] = FairQueue(BUDGET, CHUNK)
        self.now = 0.0
        self.left: dict[Sequence, int] = {}

    @rule(
        prefix=st.integers(0, 120),
        candidates=st.lists(sizes, min_size=1, max_size=12),
        wait=st.one_of(st.just(inf), st.integers(-1, 9)),
        caller=st.sampled_from("abc"),
    )
    def add(self, prefix: int, candidates: list[int], wait: float, caller: str) -> None:
        sequence = Sequence(prefix, tuple(candidates), self.now + wait, caller)
        self.queue.add(sequence)
        self.left[sequence] = 0

    @precondition(lambda self: bool(self.left))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        sequence = list(self.left)[data.draw(st.integers(0, len(self.left) - 1))]
        self.queue.remove(sequence)
        self.queue.remove(sequence)  # now unknown, and ignored
        del self.left[sequence]

    @rule(later=st.integers(0, 3))
    def schedule(self, later: int) -> None:
        self.now += later
        batch = self.queue.schedule(self.now)
        assert batch.expired == tuple(
            sequence for sequence in self.left if sequence.deadline <= self.now
        )
        for sequence in batch.expired:
            del self.left[sequence]
        self.check_order(batch.chunks)
        room = BUDGET
        for chunk in batch.chunks:
            self.check_chunk(chunk, room)
            room -= chunk.num_tokens
        self.check_full(batch.chunks, room)
        for chunk in batch.chunks:
            self.left[chunk.sequence] = chunk.stop
            assert chunk.sequence.num_scheduled == chunk.stop
            if chunk.is_last:
                del self.left[chunk.sequence]

    def check_chunk(self, chunk: Chunk[Sequence], room: int) -> None:
        """It goes on where the last one ended, pays the prefix once, and cannot be longer."""
        sequence, start = chunk.sequence, self.left[chunk.sequence]
        taken = sequence.candidate_tokens[start : chunk.stop]
        prefix = sequence.prefix_tokens if start == 0 else 0
        assert chunk.start == start < chunk.stop <= len(sequence.candidate_tokens)
        assert chunk.num_tokens == prefix + sum(taken)
        assert chunk.is_last == (chunk.stop == len(sequence.candidate_tokens))
        limit = min(CHUNK, room - prefix)
        assert sum(taken) <= limit or len(taken) == 1
        if not chunk.is_last:
            assert sum(sequence.candidate_tokens[start : chunk.stop + 1]) > limit

    def check_order(self, chunks: tuple[Chunk[Sequence], ...]) -> None:
        """Each sequence once, and the earliest deadline first within a caller."""
        for caller in "abc":
            mine = [sequence for sequence in self.left if sequence.caller == caller]
            mine.sort(key=lambda sequence: sequence.deadline)  # equal ones as they arrived
            found = [chunk.sequence for chunk in chunks if chunk.sequence.caller == caller]
            assert found == mine[: len(found)]

    def check_full(self, chunks: tuple[Chunk[Sequence], ...], room: int) -> None:
        """The budget is kept but for a lone candidate, and a waiting sequence did not fit."""
        assert room >= 0 or (len(chunks) == 1 and chunks[0].stop == chunks[0].start + 1)
        waits = self.left.keys() - {chunk.sequence for chunk in chunks}
        if waits:
            assert chunks
            assert any(self.least_tokens(sequence) > room for sequence in waits)

    def least_tokens(self, sequence: Sequence) -> int:
        start = self.left[sequence]
        return sequence.candidate_tokens[start] + (sequence.prefix_tokens if start == 0 else 0)

    @rule()
    def drain(self) -> None:
        for _ in range(sum(len(sequence.candidate_tokens) for sequence in self.left)):
            self.schedule(0)
        assert not self.left

    @invariant()
    def counts_what_waits(self) -> None:
        assert len(self.queue) == len(self.left)


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_a_long_sequence_runs_in_chunks_and_pays_its_prefix_once() -> None:
    sequence = Sequence(30, (20, 20, 21, 20, 20))
    queue = filled(sequence)
    assert [batch.chunks for batch in drained(queue)] == [
        (Chunk(sequence, 0, 2, 70, False),),
        (Chunk(sequence, 2, 3, 21, False),),
        (Chunk(sequence, 3, 5, 40, True),),
    ]
    assert queue.schedule(0.0) == MicroBatch((), ())


def test_the_budget_may_be_filled_but_not_passed() -> None:
    for num_tokens, num_chunks in ((BUDGET - 70, 2), (BUDGET - 69, 1)):
        queue = filled(Sequence(60, (10,)), Sequence(0, (num_tokens,)))
        assert len(queue.schedule(0.0).chunks) == num_chunks


def test_one_candidate_over_the_budget_runs_alone() -> None:
    first, long, third = (
        Sequence(0, (10,), 1.0),
        Sequence(90, (500, 1), 2.0),
        Sequence(0, (10,), 3.0),
    )
    assert [
        [(chunk.sequence, chunk.num_tokens) for chunk in batch.chunks]
        for batch in drained(filled(first, long, third))
    ] == [
        [(first, 10)],
        [(long, 590)],
        [(long, 1), (third, 10)],
    ]


def test_a_small_sequence_does_not_overtake_one_that_no_longer_fits() -> None:
    first, large, small = Sequence(60, (10,)), Sequence(60, (10,)), Sequence(0, (10,))
    queue = filled(first, large, small)
    assert scheduled(queue) == [first]
    assert scheduled(queue) == [large, small]


def test_a_sequence_may_expire_or_go_between_its_chunks() -> None:
    expiring, going = Sequence(0, (40, 40), 5.0), Sequence(0, (40, 40))
    queue = filled(expiring, going)
    assert scheduled(queue) == [expiring, going]
    queue.remove(going)
    assert queue.schedule(5.0) == MicroBatch((), (expiring,))
    assert not len(queue)


def test_equal_deadlines_keep_the_order_of_arrival() -> None:
    later = [Sequence(0, (1,), 9.0) for _ in range(3)]
    first = Sequence(0, (1,), 8.0)
    assert scheduled(filled(*later, first)) == [first, *later]


def test_bad_sequences_are_refused() -> None:
    for prefix, candidates in ((0, ()), (0, (3, 0)), (-1, (3,))):
        with pytest.raises(ValueError, match="sequence: nothing to compute"):
            Sequence(prefix, candidates)
    sequence = Sequence(0, (3,))
    with pytest.raises(ValueError, match="sequence: it waits already"):
        filled(sequence, sequence)


def explanation(num_tokens: int = 1, deadline: float = inf) -> Sequence:
    return Sequence(0, (num_tokens,), deadline, kind=Kind.EXPLANATION)


def scheduler_of(*sequences: Sequence) -> Scheduler[Sequence]:
    scheduler: Scheduler[Sequence] = Scheduler(BUDGET, CHUNK)
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler


def test_explanations_wait_until_no_ranking_does() -> None:
    """In any order of arrival, and however early an explanation's deadline is."""
    early, late = explanation(deadline=1.0), explanation()
    long, short = Sequence(50, (40, 40)), Sequence(5, (9,))
    scheduler = scheduler_of(early, long, late, short)
    taken = [scheduler.schedule(0.0) for _ in range(3)]
    assert [(batch.kind, [chunk.sequence for chunk in batch.chunks]) for batch in taken] == [
        (Kind.RANKING, [long]),
        (Kind.RANKING, [long, short]),
        (Kind.EXPLANATION, [early, late]),
    ]
    assert not len(scheduler)


def test_evidence_goes_between_rankings_and_words() -> None:
    """And in chunks, as a ranking does."""
    words, ranking = explanation(), Sequence(0, (9,))
    evidence = Sequence(0, (CHUNK, CHUNK), kind=Kind.EVIDENCE)
    scheduler = scheduler_of(words, evidence, ranking)
    taken = [scheduler.schedule(0.0) for _ in range(4)]
    assert [(batch.kind, [chunk.sequence for chunk in batch.chunks]) for batch in taken] == [
        (Kind.RANKING, [ranking]),
        (Kind.EVIDENCE, [evidence]),
        (Kind.EVIDENCE, [evidence]),
        (Kind.EXPLANATION, [words]),
    ]


def test_an_explanations_step_is_not_cut_into_chunks() -> None:
    steps = [explanation(CHUNK + 1), explanation(BUDGET - CHUNK - 1)]
    assert scheduled(scheduler_of(*steps)) == steps


def test_expired_rankings_do_not_hold_explanations_up() -> None:
    ranking, going_on = Sequence(0, (1,), 1.0), explanation()
    expired = explanation(deadline=1.0)
    scheduler = scheduler_of(ranking, going_on, expired)
    assert scheduler.schedule(1.0) == MicroBatch((), (ranking,))
    assert scheduler.schedule(1.0) == MicroBatch(
        (Chunk(going_on, 0, 1, 1, True),), (expired,), Kind.EXPLANATION
    )


def test_sequences_of_both_kinds_can_leave() -> None:
    ranking, going_on = Sequence(0, (1,)), explanation()
    scheduler = scheduler_of(ranking, going_on)
    scheduler.remove(going_on)
    scheduler.remove(explanation())  # unknown, and ignored
    assert len(scheduler) == 1
    scheduler.remove(ranking)
    assert scheduler.schedule(0.0).chunks == ()


def slow(tokens_per_s: float) -> Throughput:
    throughput = Throughput()
    throughput.learn(round(1000 * tokens_per_s), 1000.0, is_full=True)
    return throughput


def test_what_cannot_end_in_time_is_not_begun() -> None:
    hopeless, possible = Sequence(0, (100,), 0.5), Sequence(0, (100,), 2.0)
    batch = filled(hopeless, possible).schedule(0.0, slow(100.0))
    assert batch.expired == (hopeless,)
    assert [chunk.sequence for chunk in batch.chunks] == [possible]


def test_a_micro_batch_ends_before_the_first_deadline_in_it() -> None:
    short, others = Sequence(0, (10,), 0.5), [Sequence(0, (10,), 9.0) for _ in range(20)]
    chunks = filled(short, *others).schedule(0.0, slow(100.0)).chunks
    assert [chunk.sequence for chunk in chunks] == [short, *others[:3]]  # 0.44 s with the reserve


def test_one_is_tried_even_if_all_seem_too_late() -> None:
    late, later = Sequence(0, (50,), 0.1), Sequence(0, (50,), 0.2)
    batch = filled(late, later).schedule(0.0, slow(1.0))
    assert batch.expired == (late,)
    assert [chunk.sequence for chunk in batch.chunks] == [later]


def test_a_part_of_an_answer_is_begun_though_the_whole_comes_too_late() -> None:
    part = Sequence(0, (40,) * 50, 2.0, partial=True)
    whole = Sequence(0, (40,) * 50, 2.0)
    assert filled(part).schedule(0.0, slow(100.0)).expired == ()
    other = Sequence(0, (40,), 9.0)
    assert filled(whole, other).schedule(0.0, slow(100.0)).expired == (whole,)


def test_tokens_until_an_end_count_what_is_due_before_and_fair_shares() -> None:
    queue = filled(
        Sequence(5, (10, 10), 1.0, "a"),
        Sequence(0, (30,), 3.0, "a"),
        Sequence(0, (7,), 9.0, "b"),
        Sequence(0, (500,), 1.0, "c"),
    )
    assert queue.num_tokens_until("a", 2.0, 15) == (15 + 25) + 7 + 40
    assert queue.num_tokens_until("new", 2.0, 15) == 15 + 15 + 7 + 15
    queue.schedule(0.0)  # 25 and 30 of a, 7 of b; c comes next
    assert queue.num_tokens_until("c", 0.5, 10) == 10


@given(st.lists(st.tuples(st.integers(0, 50), st.lists(sizes, min_size=1), st.booleans())))
def test_tokens_left_are_those_that_are_scheduled(
    given_sequences: list[tuple[int, list[int], bool]],
) -> None:
    sequences = [Sequence(prefix, tuple(tokens)) for prefix, tokens, _ in given_sequences]
    left = sum(each.tokens_left for each in sequences)
    assert left == sum(batch.num_tokens for batch in drained(filled(*sequences)))
    assert not any(each.tokens_left for each in sequences)
