"""Which work goes into the next micro-batch: a token budget, shared fairly by the callers.

Rankings go before explanations. Between callers it is start-time fair queueing over tokens:
a caller's virtual time grows by the tokens that it is served, and the lowest goes first.
Within a caller the earliest deadline goes first. Pure policy, without torch and without a
clock of its own.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from math import inf


class Kind(Enum):
    """What a request wants. All work of one micro-batch is of one kind."""

    RANKING = auto()
    EXPLANATION = auto()


@dataclass(frozen=True, slots=True)
class Job:
    """One request. ``key`` names it; ``caller`` is who asks, for fair shares.

    ``prefix_tokens`` are paid with its first piece only (0 if the prefix is already cached);
    ``candidate_tokens`` are those of each candidate, in the order in which they are to be
    scored. ``deadline`` is on the caller's clock. Raises ValueError if there is nothing to do.
    """

    key: int
    prefix_tokens: int
    candidate_tokens: tuple[int, ...]
    deadline: float = inf
    caller: str = ""
    kind: Kind = Kind.RANKING

    def __post_init__(self) -> None:
        if not self.candidate_tokens or min(self.candidate_tokens) < 1 or self.prefix_tokens < 0:
            raise ValueError(
                f"job {self.key}: give at least one candidate, each of one token or more, "
                "and a prefix of no fewer than 0 tokens"
            )


@dataclass(frozen=True, slots=True)
class Piece:
    """Candidates ``start``..``stop`` (exclusive) of a job; ``last``: no more are left."""

    key: int
    start: int
    stop: int
    num_tokens: int
    last: bool


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Pieces to run together, and keys of jobs whose deadline has passed: those are forgotten."""

    pieces: tuple[Piece, ...]
    expired: tuple[int, ...]
    kind: Kind = Kind.RANKING


_Rank = tuple[float, int, int]  # deadline, arrival, key


@dataclass(slots=True)
class _Waiting:
    job: Job
    rank: _Rank
    start: int = 0

    def next_piece(self, room: int, max_piece_tokens: int) -> Piece:
        """As many of the next candidates as fit, but at least one."""
        candidates = self.job.candidate_tokens
        prefix_tokens = 0 if self.start else self.job.prefix_tokens
        limit = min(max_piece_tokens, room - prefix_tokens)
        num_tokens, stop = candidates[self.start], self.start + 1
        while stop < len(candidates) and num_tokens + candidates[stop] <= limit:
            num_tokens += candidates[stop]
            stop += 1
        last = stop == len(candidates)
        return Piece(self.job.key, self.start, stop, prefix_tokens + num_tokens, last)


@dataclass(slots=True)
class _Caller:
    virtual_time: int
    queue: list[_Rank] = field(default_factory=list[_Rank])  # always sorted


class Scheduler:
    """Waiting rankings and explanations. Not thread-safe: one event loop owns it."""

    def __init__(self, max_batch_tokens: int, max_piece_tokens: int) -> None:
        """``max_piece_tokens``: of one ranking; an explanation's step is never cut."""
        self._queues = {
            Kind.RANKING: FairQueue(max_batch_tokens, max_piece_tokens),
            Kind.EXPLANATION: FairQueue(max_batch_tokens, max_batch_tokens),
        }

    def __len__(self) -> int:
        """Jobs with work left that has not been taken."""
        return sum(map(len, self._queues.values()))

    def add(self, job: Job) -> None:
        """Lets a job wait. Raises ValueError if another waits under its key."""
        self._queues[job.kind].add(job)

    def remove(self, key: int) -> None:
        """Forgets a job that nobody waits for any more, if it still waits."""
        for queue in self._queues.values():
            queue.remove(key)

    def take(self, now: float) -> MicroBatch:
        """Takes the next micro-batch: of explanations only where no ranking waits."""
        kind = Kind.RANKING if len(self._queues[Kind.RANKING]) else Kind.EXPLANATION
        return replace(self._queues[kind].take(now), kind=kind)


class FairQueue:
    """Waiting jobs of one kind. Not thread-safe."""

    def __init__(self, max_batch_tokens: int, max_piece_tokens: int) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._max_piece_tokens = max_piece_tokens
        self._waiting: dict[int, _Waiting] = {}
        self._callers: dict[str, _Caller] = {}  # those with a waiting job, as they arrived
        self._arrivals = itertools.count()
        self._first_virtual_time = 0  # of a caller that arrives now

    def __len__(self) -> int:
        """Jobs with work left that has not been taken."""
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Lets a job wait. Raises ValueError if another waits under its key."""
        if job.key in self._waiting:
            raise ValueError(f"job {job.key} waits already: give every job its own key")
        waiting = _Waiting(job, (job.deadline, next(self._arrivals), job.key))
        self._waiting[job.key] = waiting
        if job.caller not in self._callers:
            self._callers[job.caller] = _Caller(self._first_virtual_time)
        insort(self._callers[job.caller].queue, waiting.rank)

    def remove(self, key: int) -> None:
        """Forgets a job that nobody waits for any more, if it still waits."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        caller = self._callers[waiting.job.caller]
        del caller.queue[bisect_left(caller.queue, waiting.rank)]
        if not caller.queue:
            del self._callers[waiting.job.caller]
            # Its debt outlives it. Otherwise those who leave and return would always come
            # before those who stay.
            self._first_virtual_time = max(self._first_virtual_time, caller.virtual_time)

    def take(self, now: float) -> MicroBatch:
        """Takes the next micro-batch and everything that has expired by ``now``.

        Sequences lie end to end, so a piece counts its own tokens. One candidate over the
        budget runs alone. A job gets one piece at most: the next needs the prefix that the
        first computes.
        """
        expired = self._expire(now)
        pieces = self._choose()
        self._advance(pieces)
        return MicroBatch(tuple(pieces), expired)

    def _expire(self, now: float) -> tuple[int, ...]:
        expired = tuple(key for key, item in self._waiting.items() if item.job.deadline <= now)
        for key in expired:
            self.remove(key)
        return expired

    def _choose(self) -> list[Piece]:
        pieces: list[Piece] = []
        room, reached = self._max_batch_tokens, 0
        for caller, waiting in self._turns():
            piece = waiting.next_piece(room, self._max_piece_tokens)
            if pieces and piece.num_tokens > room:
                break  # nor may a smaller one overtake it: it could be overtaken for ever
            pieces.append(piece)
            room -= piece.num_tokens
            reached = caller.virtual_time
            caller.virtual_time += piece.num_tokens
        self._catch_up(reached)
        return pieces

    def _turns(self) -> Iterator[tuple[_Caller, _Waiting]]:
        """Every job once, in the order of the virtual times as they grow on the way."""
        turns = [
            (caller.virtual_time, arrival, caller, iter(caller.queue))
            for arrival, caller in enumerate(self._callers.values())
        ]
        heapify(turns)
        while turns:
            _, arrival, caller, queue = heappop(turns)
            rank = next(queue, None)
            if rank is not None:
                yield caller, self._waiting[rank[-1]]
                heappush(turns, (caller.virtual_time, arrival, caller, queue))

    def _catch_up(self, reached: int) -> None:
        """Takes the credit from callers with too few jobs to use their share of the batch."""
        for caller in self._callers.values():
            caller.virtual_time = max(caller.virtual_time, reached)

    def _advance(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self._waiting[piece.key].start = piece.stop
            if piece.last:
                self.remove(piece.key)
        lowest = min((caller.virtual_time for caller in self._callers.values()), default=0)
        self._first_virtual_time = max(self._first_virtual_time, lowest)
