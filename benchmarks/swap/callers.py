"""A process that makes the same calls without end, and the answers that it gets.

It imports neither torch nor the server. Times are from the monotonic clock, which all processes of
a Linux machine share.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

import grpc

from benchmarks.common.children import without_interrupts
from benchmarks.common.rank_calls import TIMEOUT_S, BenchmarkCall
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

AFTER_FAILURE_S = 0.05  # so that a dead server does not get a thousand calls a second


class CallersEndedError(Exception):
    """The process that calls the server ended too early."""


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The outcome of one call.

    ``call``: its index among the calls. ``scores``: of its items, in the order of the call.
    ``failure``: why there are no scores.
    """

    call: int
    sent: float
    received: float
    revision: int = 0
    scores: tuple[float, ...] = ()
    failure: str = ""


class Callers:
    """The answers of a running process; start it with ``calling``."""

    def __init__(self, pipe: Connection) -> None:
        self._answers: SimpleQueue[CallOutcome | None] = SimpleQueue()
        threading.Thread(target=self._read, args=(pipe,), daemon=True).start()

    def take(self, timeout_s: float = 0.0) -> list[CallOutcome]:
        """All answers since the last call, in order; waits at most ``timeout_s`` for the first.

        Raises CallersEndedError.
        """
        found: list[CallOutcome] = []
        try:
            answer = self._answers.get(timeout_s > 0.0, timeout_s)
            while answer is not None:
                found.append(answer)
                answer = self._answers.get_nowait()
        except Empty:
            return found
        raise CallersEndedError("the process that calls the server has ended")

    def _read(self, pipe: Connection) -> None:
        """Reads at once, so that the callers never wait for room in the pipe."""
        try:
            while True:
                self._answers.put(pipe.recv())
        except (EOFError, OSError):
            self._answers.put(None)


@contextmanager
def calling(address: str, calls: Sequence[BenchmarkCall], in_flight: int) -> Iterator[Callers]:
    """Calls without end; the process is ended and awaited when the block ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    args = (address, calls, in_flight, there)
    process = context.Process(target=_call_without_end, args=args, daemon=True)
    with without_interrupts():
        process.start()
    there.close()  # so that recv here notices when the process ends
    try:
        yield Callers(here)
    finally:
        process.terminate()
        process.join()


def _call_without_end(
    address: str, calls: Sequence[BenchmarkCall], in_flight: int, pipe: Connection
) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
            stub = ranking_pb2_grpc.RankingServiceStub(channel)
            for number in range(in_flight):
                group.create_task(_caller(stub, calls, pipe, random.Random(number)))

    asyncio.run(run())


async def _caller(
    stub: ranking_pb2_grpc.RankingServiceAsyncStub,
    calls: Sequence[BenchmarkCall],
    pipe: Connection,
    turns: random.Random,
) -> None:
    """Makes one call after the other, each chosen at random."""
    requests = [call.request() for call in calls]
    while True:
        index = turns.randrange(len(calls))
        outcome = await _outcome(stub, requests[index], index, calls[index])
        pipe.send(outcome)
        if outcome.failure:
            await asyncio.sleep(AFTER_FAILURE_S)


async def _outcome(
    stub: ranking_pb2_grpc.RankingServiceAsyncStub,
    request: ranking_pb2.RankRequest,
    index: int,
    call: BenchmarkCall,
) -> CallOutcome:
    sent = time.monotonic()
    try:
        answer = await stub.Rank(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        failure = f"{error.code().name}: {error.details()}"
        return CallOutcome(index, sent, time.monotonic(), failure=failure)
    received, scores = time.monotonic(), call.scores(answer)
    failure = "" if scores else "not every item has a score"
    return CallOutcome(index, sent, received, answer.revision.number, scores, failure)
