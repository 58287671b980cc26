"""Calls that are due at fixed times, and how each of them ends.

They are sent from a process of their own, so this imports neither torch nor the server.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from benchmarks.common.rank_calls import BenchmarkCall
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

ANSWERED = "OK"


@dataclass(frozen=True, slots=True)
class CallEnd:
    """``code``: of gRPC. ``due`` and ``ended``: seconds since the first call was due."""

    code: str
    due: float
    ended: float


@dataclass(frozen=True, slots=True)
class OverloadOutcome:
    """How the calls of one load ended. ``seconds``: from the first to the last that was due."""

    rate: float
    seconds: float
    deadline_s: float
    ends: tuple[CallEnd, ...]

    @property
    def goodput(self) -> float:
        """Answers per second, once the first calls have reached their deadline."""
        window = self.deadline_s, self.seconds
        answers = sum(
            each.code == ANSWERED and window[0] <= each.ended < window[1] for each in self.ends
        )
        return answers / (window[1] - window[0])

    @property
    def codes(self) -> dict[str, int]:
        """Number of calls by code."""
        return dict(Counter(each.code for each in self.ends))

    def seconds_to(self, code: str) -> list[float]:
        """How long each of the calls took that ended so."""
        return [each.ended - each.due for each in self.ends if each.code == code]


def overload(
    address: str, calls: Sequence[BenchmarkCall], rate: float, seconds: float, deadline_s: float
) -> OverloadOutcome:
    """Sends ``rate`` calls a second, for as long as ``seconds`` and one deadline."""

    async def run() -> OverloadOutcome:
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()
            stub = ranking_pb2_grpc.RankingServiceStub(channel)
            requests = itertools.cycle([call.request() for call in calls])
            start, length = time.perf_counter(), seconds + deadline_s

            async def call(request: ranking_pb2.RankRequest, due: float) -> CallEnd:
                code = ANSWERED
                try:
                    await stub.Rank(request, timeout=deadline_s - (time.perf_counter() - due))
                except grpc.aio.AioRpcError as error:
                    code = error.code().name
                return CallEnd(code, due - start, time.perf_counter() - start)

            tasks: list[asyncio.Task[CallEnd]] = []
            for number in range(max(1, round(rate * length))):
                due = start + number / rate
                if (left := due - time.perf_counter()) > 0:
                    await asyncio.sleep(left)
                tasks.append(asyncio.create_task(call(next(requests), due)))
            ends = tuple(await asyncio.gather(*tasks))
            return OverloadOutcome(rate, length, deadline_s, ends)

    return asyncio.run(run())
