"""Queues of sequences with a small token budget, and what they schedule."""

from __future__ import annotations

from collections.abc import Iterator

from rankloom_engine.scheduler import FairQueue, MicroBatch, Scheduler, Sequence

BUDGET, CHUNK = 100, 40


def filled(*sequences: Sequence) -> FairQueue[Sequence]:
    queue: FairQueue[Sequence] = FairQueue(BUDGET, CHUNK)
    for sequence in sequences:
        queue.add(sequence)
    return queue


def drained(queue: FairQueue[Sequence]) -> Iterator[MicroBatch[Sequence]]:
    while len(queue):
        yield queue.schedule(0.0)


def scheduled(queue: FairQueue[Sequence] | Scheduler[Sequence]) -> list[Sequence]:
    return [chunk.sequence for chunk in queue.schedule(0.0).chunks]
