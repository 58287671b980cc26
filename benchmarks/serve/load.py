"""Load on a server: callers that wait for each answer, and health checks at a fixed rate.

It runs in its own processes, so it imports neither torch nor the server.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.common.rank_calls import TIMEOUT_S, BenchmarkCall
from rankloom_proto.v1 import ranking_pb2_grpc

T = TypeVar("T")


async def closed_loop(
    work: Callable[[T], Awaitable[object]],
    turns: Sequence[T],
    in_flight: int,
    seconds: float,
    first: int = 0,
) -> list[float]:
    """Seconds of each call, by ``in_flight`` callers that call again once they have an answer.

    They cycle through ``turns``, beginning at index ``first``. Calls that began in time are
    awaited and counted, so that no work is left out.
    """
    latencies: list[float] = []
    each = itertools.islice(itertools.cycle(turns), first, None)
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (started := time.perf_counter()) < end:
            await work(next(each))
            latencies.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return latencies


async def open_loop(
    work: Callable[[], Awaitable[object]], rate: float, seconds: float
) -> list[float]:
    """Seconds of each call since it was due; a slow call neither delays nor hides another."""
    latencies: list[float] = []

    async def caller(due: float) -> None:
        await work()
        latencies.append(time.perf_counter() - due)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(max(1, round(rate * seconds))):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(caller(due))
    return latencies


def rank(
    address: str, calls: Sequence[BenchmarkCall], in_flight: int, seconds: float, first: int = 0
) -> list[float]:
    """Seconds of each Rank call; arguments as for ``closed_loop``."""

    async def run() -> list[float]:
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            stub = ranking_pb2_grpc.RankingServiceStub(channel)
            requests = [call.request() for call in calls]
            return await closed_loop(
                lambda request: stub.Rank(request, timeout=TIMEOUT_S),
                requests,
                in_flight,
                seconds,
                first,
            )

    return asyncio.run(run())


def scores(address: str, calls: Sequence[BenchmarkCall]) -> list[dict[str, float]]:
    """Scores by item of each call, one call after the other."""
    with grpc.insecure_channel(address) as channel:
        stub = ranking_pb2_grpc.RankingServiceStub(channel)
        answers = [stub.Rank(call.request(), timeout=TIMEOUT_S) for call in calls]
    return [{item.item_id: item.score for item in answer.items} for answer in answers]


def check_health(address: str, delay_s: float, rate: float, seconds: float) -> list[float]:
    """Seconds of each health check; the first one is due in ``delay_s``."""

    async def run() -> list[float]:
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            await asyncio.sleep(delay_s)
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            return await open_loop(lambda: stub.Check(request, timeout=TIMEOUT_S), rate, seconds)

    return asyncio.run(run())
