"""Which sequences go into the next micro-batch: a token budget, shared fairly by the callers.

Rankings go before evidence, and evidence before the words of explanations. Callers share by
start-time fair queueing over tokens: a caller's virtual time grows by the tokens that it is
given, and the lowest goes first. Within a caller the earliest deadline goes first. What cannot
end before its deadline is not begun: it would take the time of those that can. Pure policy,
without torch and without a clock of its own.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from math import inf
from operator import attrgetter
from typing import Generic, TypeVar

from rankloom_engine.throughput import Throughput


class Kind(Enum):
    """What a sequence is for, first things first. A micro-batch's chunks are of one kind."""

    RANKING = auto()
    EVIDENCE = auto()
    EXPLANATION = auto()


@dataclass(slots=True, eq=False)
class Sequence:
    """A request as the scheduler sees it: its cost in tokens, and its progress.

    ``prefix_tokens`` are paid with the first chunk only (0 if the prefix is cached).
    ``candidate_tokens``: of each candidate, in the order in which they are scored.
    ``deadline``: on the clock of ``Scheduler.schedule``. ``caller``: whose fair share it
    uses. ``num_scheduled``: candidates that have been in a chunk. ``tokens_left``: to be
    scheduled. ``partial``: each chunk is of use, also where the last one comes too late. Raises
    ValueError if there is nothing to compute.
    """

    prefix_tokens: int
    candidate_tokens: tuple[int, ...]
    deadline: float = inf
    caller: str = ""
    kind: Kind = Kind.RANKING
    num_scheduled: int = 0
    partial: bool = False
    tokens_left: int = field(init=False)

    def __post_init__(self) -> None:
        if not self.candidate_tokens or min(self.candidate_tokens) < 1 or self.prefix_tokens < 0:
            raise ValueError(
                "sequence: nothing to compute; give at least one candidate, each of at least "
                "one token, and a prefix of 0 tokens or more"
            )
        self.tokens_left = self.prefix_tokens + sum(self.candidate_tokens)


S = TypeVar("S", bound=Sequence)


@dataclass(frozen=True, slots=True)
class Chunk(Generic[S]):
    """Candidates ``start``..``stop`` (exclusive) of a sequence in one micro-batch.

    ``num_tokens`` includes the prefix where the chunk is the first one. ``is_last``: no
    candidates are left behind it.
    """

    sequence: S
    start: int
    stop: int
    num_tokens: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class MicroBatch(Generic[S]):
    """Chunks to run together, and sequences that were removed: they cannot end in time.

    ``is_full``: it holds half of the budget, or others had to be left out.
    """

    chunks: tuple[Chunk[S], ...]
    expired: tuple[S, ...]
    kind: Kind = Kind.RANKING
    is_full: bool = False

    @property
    def num_tokens(self) -> int:
        """Of all chunks."""
        return sum(chunk.num_tokens for chunk in self.chunks)


@dataclass(slots=True)
class _Caller(Generic[S]):
    """``queue``: deadline, arrival and sequence, always sorted; no two arrivals are equal."""

    virtual_time: int
    queue: list[tuple[float, int, S]] = field(default_factory=list[tuple[float, int, S]])

    @property
    def num_tokens(self) -> int:
        """That wait."""
        return sum(sequence.tokens_left for _, _, sequence in self.queue)


class Scheduler(Generic[S]):
    """Waiting rankings, evidence and explanations. Not thread-safe: one event loop owns it."""

    def __init__(self, max_batch_tokens: int, max_chunk_tokens: int) -> None:
        """``max_chunk_tokens``: of one ranking; a step of an explanation is never cut."""
        self._queues: dict[Kind, FairQueue[S]] = {
            Kind.RANKING: FairQueue(max_batch_tokens, max_chunk_tokens),
            Kind.EVIDENCE: FairQueue(max_batch_tokens, max_chunk_tokens),
            Kind.EXPLANATION: FairQueue(max_batch_tokens, max_batch_tokens),
        }

    def __len__(self) -> int:
        """Sequences with candidates that have not been scheduled."""
        return sum(map(len, self._queues.values()))

    def add(self, sequence: S) -> None:
        """Queues a sequence. Raises ValueError if it waits already."""
        self._queues[sequence.kind].add(sequence)

    def remove(self, sequence: S) -> None:
        """Removes a sequence if it still waits."""
        self._queues[sequence.kind].remove(sequence)

    def clear(self) -> tuple[S, ...]:
        """Removes and returns all that waits."""
        return tuple(each for queue in self._queues.values() for each in queue.clear())

    def num_tokens_until(self, caller: str, deadline: float, num_tokens: int) -> int:
        """As ``FairQueue.num_tokens_until``, for a ranking."""
        return self._queues[Kind.RANKING].num_tokens_until(caller, deadline, num_tokens)

    def schedule(self, now: float, throughput: Throughput | None = None) -> MicroBatch[S]:
        """The next micro-batch, of the first kind that waits."""
        kind = next((kind for kind, queue in self._queues.items() if len(queue)), Kind.RANKING)
        known = None if kind is Kind.EXPLANATION else throughput  # a word's time is another one
        return replace(self._queues[kind].schedule(now, known), kind=kind)


class FairQueue(Generic[S]):
    """Waiting sequences of one kind. Not thread-safe."""

    def __init__(self, max_batch_tokens: int, max_chunk_tokens: int) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._max_chunk_tokens = max_chunk_tokens
        self._waiting: dict[S, tuple[float, int, S]] = {}  # its entry in its caller's queue
        self._callers: dict[str, _Caller[S]] = {}  # with a waiting sequence, as they arrived
        self._arrivals = itertools.count()
        self._first_virtual_time = 0  # of a caller that arrives now

    def __len__(self) -> int:
        """Sequences with candidates that have not been scheduled."""
        return len(self._waiting)

    def add(self, sequence: S) -> None:
        """Queues a sequence. Raises ValueError if it waits already."""
        if sequence in self._waiting:
            raise ValueError("sequence: it waits already; add each sequence once")
        entry = sequence.deadline, next(self._arrivals), sequence
        self._waiting[sequence] = entry
        if sequence.caller not in self._callers:
            self._callers[sequence.caller] = _Caller(self._first_virtual_time)
        insort(self._callers[sequence.caller].queue, entry)

    def remove(self, sequence: S) -> None:
        """Removes a sequence if it still waits."""
        entry = self._waiting.pop(sequence, None)
        if entry is None:
            return
        caller = self._callers[sequence.caller]
        del caller.queue[bisect_left(caller.queue, entry)]
        if not caller.queue:
            del self._callers[sequence.caller]
            # Its debt outlives it. Otherwise callers that leave and return would always come
            # before those that stay.
            self._first_virtual_time = max(self._first_virtual_time, caller.virtual_time)

    def clear(self) -> tuple[S, ...]:
        """Removes and returns all that waits."""
        waiting = tuple(self._waiting)
        for sequence in waiting:
            self.remove(sequence)
        return waiting

    def num_tokens_until(self, caller: str, deadline: float, num_tokens: int) -> int:
        """Tokens that run until a new sequence of ``num_tokens`` ends, its own included.

        Of its own caller all that is due before it; of each other caller as much as fair
        shares give that caller meanwhile. Sequences that come later are not foreseen.
        """
        own = self._callers.get(caller)
        reached = self._first_virtual_time if own is None else own.virtual_time
        ahead = [] if own is None else [each for due, _, each in own.queue if due <= deadline]
        mine = num_tokens + sum(each.tokens_left for each in ahead)
        return mine + sum(
            min(max(reached + mine - other.virtual_time, 0), other.num_tokens)
            for other in self._callers.values()
            if other is not own
        )

    def schedule(self, now: float, throughput: Throughput | None = None) -> MicroBatch[S]:
        """The next micro-batch, and all sequences that cannot end before their deadline any more.

        Without ``throughput`` these are the ones whose deadline has passed by ``now``.

        Rows lie end to end without padding, so a chunk costs its own tokens. A sequence ends
        with its last micro-batch, so none grows beyond the first deadline in it. One candidate
        over the budget runs alone. A sequence gets one chunk at most: the next one needs the
        prefix that the first computes.
        """
        expired = self._expire(now, throughput)
        chunks = self._choose(now, throughput)
        self._advance(chunks)
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        is_full = bool(len(self)) or 2 * num_tokens >= self._max_batch_tokens
        return MicroBatch(tuple(chunks), expired, is_full=is_full)

    def _expire(self, now: float, throughput: Throughput | None) -> tuple[S, ...]:
        expired = [each for each in self._waiting if each.deadline <= now]
        if throughput is not None:
            expired += self._late(now, throughput)
        for sequence in expired:
            self.remove(sequence)
        return tuple(expired)

    def _late(self, now: float, throughput: Throughput) -> list[S]:
        """Sequences that end after their deadline, which is still to come, even if they go next.

        If all are late, one is tried nevertheless: a wrong estimate is corrected by that alone.
        """
        in_time = [each for each in self._waiting if each.deadline > now]
        late = [
            each
            for each in in_time
            if not each.partial and each.deadline <= now + throughput.seconds(each.tokens_left)
        ]
        if late and len(late) == len(in_time):
            late.remove(max(late, key=attrgetter("deadline")))
        return late

    def _choose(self, now: float, throughput: Throughput | None) -> list[Chunk[S]]:
        chunks: list[Chunk[S]] = []
        room, reached, due = self._max_batch_tokens, 0, inf
        for caller, sequence in self._turns():
            chunk = _next_chunk(sequence, room, self._max_chunk_tokens)
            due = min(due, sequence.deadline)
            num_tokens = self._max_batch_tokens - room + chunk.num_tokens
            is_late = throughput is not None and now + throughput.seconds(num_tokens) > due
            if chunks and (chunk.num_tokens > room or is_late):
                break  # A smaller one must not overtake it: it could be overtaken for ever.
            chunks.append(chunk)
            room -= chunk.num_tokens
            reached = caller.virtual_time
            caller.virtual_time += chunk.num_tokens
        self._catch_up(reached)
        return chunks

    def _turns(self) -> Iterator[tuple[_Caller[S], S]]:
        """Every sequence once, in the order of the virtual times as they grow on the way."""
        turns = [
            (caller.virtual_time, arrival, caller, iter(caller.queue))
            for arrival, caller in enumerate(self._callers.values())
        ]
        heapify(turns)
        while turns:
            _, arrival, caller, queue = heappop(turns)
            entry = next(queue, None)
            if entry is not None:
                yield caller, entry[-1]
                heappush(turns, (caller.virtual_time, arrival, caller, queue))

    def _catch_up(self, reached: int) -> None:
        """Takes the credit from callers with too few sequences to use their share of the batch."""
        for caller in self._callers.values():
            caller.virtual_time = max(caller.virtual_time, reached)

    def _advance(self, chunks: Iterable[Chunk[S]]) -> None:
        for chunk in chunks:
            chunk.sequence.num_scheduled = chunk.stop
            chunk.sequence.tokens_left -= chunk.num_tokens
            if chunk.is_last:
                self.remove(chunk.sequence)
        lowest = min((caller.virtual_time for caller in self._callers.values()), default=0)
        self._first_virtual_time = max(self._first_virtual_time, lowest)


def _next_chunk(sequence: S, room: int, max_chunk_tokens: int) -> Chunk[S]:
    """As many of the next candidates as fit, but at least one."""
    candidates, start = sequence.candidate_tokens, sequence.num_scheduled
    prefix_tokens = 0 if start else sequence.prefix_tokens
    limit = min(max_chunk_tokens, room - prefix_tokens)
    num_tokens, stop = candidates[start], start + 1
    while stop < len(candidates) and num_tokens + candidates[stop] <= limit:
        num_tokens += candidates[stop]
        stop += 1
    return Chunk(sequence, start, stop, prefix_tokens + num_tokens, stop == len(candidates))
