"""A process that ranks the same calls without end, and what it was answered.

It imports neither torch nor the server. Times are of the monotonic clock, which all
processes of a machine share on Linux.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

import grpc
from serve_load import TIMEOUT_S, Call

from rankloom_proto.v1 import features_pb2, ranking_pb2, ranking_pb2_grpc

AFTER_FAILURE_S = 0.05  # so that a server that is gone is not asked a thousand times a second


class LoadEndedError(Exception):
    """The process that calls has ended before it was told to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call.

    ``call``: its place in the set. ``scores``: of its items, in the order of the call.
    ``failure``: why there are none.
    """

    call: int
    sent: float
    received: float
    revision: int = 0
    scores: tuple[float, ...] = ()
    failure: str = ""


class Load:
    """The answers of a running process; make it with ``loading``."""

    def __init__(self, pipe: Connection) -> None:
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()
        threading.Thread(target=self._read, args=(pipe,), daemon=True).start()

    def take(self, timeout_s: float = 0.0) -> list[Answer]:
        """All that have come, in their order; waits so long for the first one.

        Raises LoadEndedError.
        """
        found: list[Answer] = []
        try:
            answer = self._answers.get(timeout_s > 0.0, timeout_s)
            while answer is not None:
                found.append(answer)
                answer = self._answers.get_nowait()
        except Empty:
            return found
        raise LoadEndedError("the process that calls the server has ended")

    def _read(self, pipe: Connection) -> None:
        """Reads on at once, so that the callers never wait for room in the pipe."""
        try:
            while True:
                self._answers.put(pipe.recv())
        except (EOFError, OSError):
            self._answers.put(None)


@contextmanager
def loading(address: str, calls: Sequence[Call], in_flight: int) -> Iterator[Load]:
    """Calls without end; the process is ended and waited for when the body ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    args = (address, calls, in_flight, there)
    process = context.Process(target=_call_without_end, args=args, daemon=True)
    process.start()
    there.close()  # so that its end is heard here
    try:
        yield Load(here)
    finally:
        process.terminate()
        process.join()


def request_of(call: Call, revision: int | None = None) -> ranking_pb2.RankRequest:
    """Answered by the model or not at all; by this revision, if one is given."""
    return ranking_pb2.RankRequest(
        user_id=call.user,
        candidates=[features_pb2.Candidate(item_id=item) for item in call.items],
        options=ranking_pb2.RankOptions(allow_fallback=False, revision=revision),
    )


def scores_of(call: Call, answer: ranking_pb2.RankResponse) -> tuple[float, ...]:
    """In the order of the call; empty where an item has none, or others came too."""
    found = {item.item_id: item.score for item in answer.items if item.scored}
    scores = tuple(found.get(item, math.nan) for item in call.items)
    is_whole = len(answer.items) == len(call.items) and all(map(math.isfinite, scores))
    return scores if is_whole else ()


def _call_without_end(
    address: str, calls: Sequence[Call], in_flight: int, pipe: Connection
) -> None:
    # Ctrl-C reaches the whole terminal group; the process that began this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def run() -> None:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
            stub = ranking_pb2_grpc.RankingServiceStub(channel)
            for number in range(in_flight):
                group.create_task(_caller(stub, calls, pipe, random.Random(number)))

    asyncio.run(run())


async def _caller(
    stub: ranking_pb2_grpc.RankingServiceAsyncStub,
    calls: Sequence[Call],
    pipe: Connection,
    turns: random.Random,
) -> None:
    """Any of the calls, and once it is answered any other."""
    requests = [request_of(call) for call in calls]
    while True:
        place = turns.randrange(len(calls))
        answer = await _asked(stub, requests[place], place, calls[place])
        pipe.send(answer)
        if answer.failure:
            await asyncio.sleep(AFTER_FAILURE_S)


async def _asked(
    stub: ranking_pb2_grpc.RankingServiceAsyncStub,
    request: ranking_pb2.RankRequest,
    place: int,
    call: Call,
) -> Answer:
    sent = time.monotonic()
    try:
        answer = await stub.Rank(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        failure = f"{error.code().name}: {error.details()}"
        return Answer(place, sent, time.monotonic(), failure=failure)
    received, scores = time.monotonic(), scores_of(call, answer)
    failure = "" if scores else "not every item has a score"
    return Answer(place, sent, received, answer.revision.number, scores, failure)
