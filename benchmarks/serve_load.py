"""Load on a server: callers who wait for each answer, and checks at a fixed rate.

It runs in processes of its own, so it imports neither torch nor the server.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rankloom_proto.v1 import features_pb2, ranking_pb2, ranking_pb2_grpc

T = TypeVar("T")
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """Whose candidates are to be ranked."""

    user: str
    items: tuple[str, ...]


async def closed_loop(
    work: Callable[[T], Awaitable[object]],
    turns: Sequence[T],
    in_flight: int,
    seconds: float,
    first: int = 0,
) -> list[float]:
    """Seconds of each call; so many callers take turns and call again once answered.

    ``first``: of the turns, which are taken again and again. What has begun in time is
    waited for, so that all work belongs to a call that counts.
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
    """Seconds from when each call was due: one that waits delays none, and hides nothing."""
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
    address: str, calls: Sequence[Call], in_flight: int, seconds: float, first: int = 0
) -> list[float]:
    """Seconds of each Rank, as of ``closed_loop``."""

    async def run() -> list[float]:
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            stub = ranking_pb2_grpc.RankingServiceStub(channel)
            requests = [_request(call) for call in calls]
            return await closed_loop(
                lambda request: stub.Rank(request, timeout=TIMEOUT_S),
                requests,
                in_flight,
                seconds,
                first,
            )

    return asyncio.run(run())


def scores(address: str, calls: Sequence[Call]) -> list[dict[str, float]]:
    """The score of each item of each call, one call after the other."""
    with grpc.insecure_channel(address) as channel:
        stub = ranking_pb2_grpc.RankingServiceStub(channel)
        answers = [stub.Rank(_request(call), timeout=TIMEOUT_S) for call in calls]
    return [{item.item_id: item.score for item in answer.items} for answer in answers]


def check_health(address: str, delay_s: float, rate: float, seconds: float) -> list[float]:
    """Seconds of each check, the first one ``delay_s`` from now."""

    async def run() -> list[float]:
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            await asyncio.sleep(delay_s)
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            return await open_loop(lambda: stub.Check(request, timeout=TIMEOUT_S), rate, seconds)

    return asyncio.run(run())


def _request(call: Call) -> ranking_pb2.RankRequest:
    """Answered by the model or not at all."""
    return ranking_pb2.RankRequest(
        user_id=call.user,
        candidates=[features_pb2.Candidate(item_id=item) for item in call.items],
        options=ranking_pb2.RankOptions(allow_fallback=False),
    )
