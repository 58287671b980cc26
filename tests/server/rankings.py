"""Ranking servers in this process, on a real bundle, and calls to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from rankloom_proto.v1.features_pb2 import Candidate
from rankloom_proto.v1.ranking_pb2 import RankOptions, RankRequest, RankResponse
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from server.served_parts import ServedParts, ranking_server
from server.servers import opened


@asynccontextmanager
async def ranking_channel(parts: ServedParts, **values: object) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        ranking_server(parts, **values) as server,
        opened(server) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield channel


def known_user(parts: ServedParts) -> str:
    return next(parts.loaded.provider.events.users())


def item_ids(parts: ServedParts, count: int) -> list[str]:
    return [item.item_id for item in parts.loaded.provider.catalogue.items[:count]]


def candidates(ids: Sequence[str]) -> list[Candidate]:
    return [Candidate(item_id=item_id) for item_id in ids]


def request(parts: ServedParts, count: int = 5, /, **fields: object) -> RankRequest:
    """A good request of a known user, but for what is given."""
    given = {"candidates": candidates(item_ids(parts, count)), **fields}
    if "history" not in fields:
        given.setdefault("user_id", known_user(parts))
    return RankRequest(**given)  # type: ignore[arg-type]


def with_options(parts: ServedParts, **options: object) -> RankRequest:
    return request(parts, options=RankOptions(**options))  # type: ignore[arg-type]


async def rank(
    channel: grpc.aio.Channel, message: RankRequest, *, timeout_s: float | None = 30
) -> RankResponse:
    answer: RankResponse = await RankingServiceStub(channel).Rank(message, timeout=timeout_s)
    return answer


def order(answer: RankResponse) -> list[str]:
    return [item.item_id for item in answer.items]


def scores(answer: RankResponse) -> dict[str, float]:
    return {item.item_id: item.score for item in answer.items}
