"""A ranking server with its feature port in this process, and stubs of all that it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_server.app import servers
from rankloom_server.config import Settings

if TYPE_CHECKING:
    from rankloom_proto.v1.features_pb2_grpc import FeatureServiceAsyncStub
    from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceAsyncStub
    from rankloom_server.rpc.lifecycle import RpcServer


@dataclass(frozen=True, slots=True, eq=False)
class LiveServer:
    """``health``: of the feature port."""

    ranking: RankingServiceAsyncStub
    features: FeatureServiceAsyncStub
    health: Any


@asynccontextmanager
async def live_server(bundle: Path, events: Path | None = None) -> AsyncIterator[LiveServer]:
    """Serves a bundle in float32. ``events``: the store's file; None: that beside the bundle."""
    given = {"bundle": bundle, "features_port": 0, "dtype": "float32", "port": 0}
    if events is not None:
        given["events"] = events
    async with servers(Settings.from_flat(given)) as (server, _):
        features, _ = server.beside[0]
        async with channel_to(server) as ranking, channel_to(features) as to_features:
            yield LiveServer(
                RankingServiceStub(ranking),
                FeatureServiceStub(to_features),
                health_pb2_grpc.HealthStub(to_features),
            )


@asynccontextmanager
async def channel_to(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    """Starts a server on a free port, and stops it when the block ends."""
    port = await server.start("127.0.0.1", 0)
    await server.open()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.grpc.stop(None)
