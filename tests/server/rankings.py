"""Ranking servers in this process, on a real bundle, and calls to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc

from rankloom_adapters import bundle
from rankloom_engine.runner import EngineRunner
from rankloom_features.events import EventLog
from rankloom_proto.v1.features_pb2 import Candidate
from rankloom_proto.v1.ranking_pb2 import RankOptions, RankRequest, RankResponse
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_server.app import Parts, ranking_server
from rankloom_server.features import EmbeddedFeatures, space_of
from rankloom_server.scoring import Served
from server.servers import opened, settings


@asynccontextmanager
async def ranking_channel(parts: Parts, **values: object) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        ranking_server(settings(**values), parts) as server,
        opened(server) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield channel


def served_of(parts: Parts) -> Served:
    """What a revision of this bundle serves, with an engine that is not started."""
    own, engine = parts.own, parts.engine
    return Served(
        bundle_digest="first",
        catalogue=own.provider.catalogue,
        popularity=own.popularity,
        features=EmbeddedFeatures(own.provider),
        space=space_of(own.provider),
        trees=parts.trees,
        weaver=engine.weaver,
        runner=EngineRunner(engine.decoder, stops=engine.weaver.stops),
    )


def known_user(parts: Parts) -> str:
    return EventLog.from_bytes(parts.own.bundle.read(bundle.EVENTS)).users[0]


def item_ids(parts: Parts, count: int) -> list[str]:
    return [item.item_id for item in parts.own.provider.catalogue.items[:count]]


def candidates(ids: Sequence[str]) -> list[Candidate]:
    return [Candidate(item_id=item_id) for item_id in ids]


def request(parts: Parts, count: int = 5, /, **fields: object) -> RankRequest:
    """A good request of a known user, but for what is given."""
    given = {"candidates": candidates(item_ids(parts, count)), **fields}
    if "history" not in fields:
        given.setdefault("user_id", known_user(parts))
    return RankRequest(**given)  # type: ignore[arg-type]


def with_options(parts: Parts, **options: object) -> RankRequest:
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
