"""The ranking server: everything of a bundle, behind RankingService and FeatureService."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import BundleError
from rankloom_adapters.generation import Generations, Traffic
from rankloom_engine.loading import Engine, Hardware, load_engine
from rankloom_engine.memory import keep_freed_memory
from rankloom_engine.runner import EngineLimits, EngineRunner
from rankloom_features import service as feature_service
from rankloom_features.events import Event
from rankloom_features.provider import FeatureProvider, UserQuery
from rankloom_features.ranker import TreeRanker
from rankloom_proto.v1 import features_pb2_grpc, ranking_pb2_grpc
from rankloom_server import logs, ranking
from rankloom_server.admission import Admission
from rankloom_server.config import Settings
from rankloom_server.errors import StartError
from rankloom_server.features import EmbeddedFeatures, FeatureSource, RemoteFeatures, space_of
from rankloom_server.loading import FeatureParts, load_features
from rankloom_server.parse import RankQuery
from rankloom_server.pipeline import RankPipeline
from rankloom_server.rpc.lifecycle import RpcServer
from rankloom_server.scoring import Served, rank_with_features

FIRST = 1  # the generation of the bundle that a server is started with


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A loaded bundle."""

    own: FeatureParts
    engine: Engine
    trees: TreeRanker


def serve_ranking(settings: Settings) -> None:
    """Serves until a signal to stop. Raises StartError."""
    logs.configure(settings.log_level)
    keep_freed_memory()
    torch.set_num_threads(settings.threads)
    hardware = Hardware(settings.device, settings.dtype, settings.compile)
    asyncio.run(_serve(settings, load_parts(settings.bundle, hardware)))


def load_parts(folder: Path, hardware: Hardware | None = None) -> Parts:
    """Loads a whole bundle; takes seconds, and blocks. Raises StartError."""
    own = load_features(folder)
    try:
        engine = load_engine(own.bundle, hardware)
        if engine.weaver.gate.dim != own.provider.encoder.dim:
            raise BundleError(parts.GATE, "not of the feature model's latent space")
        return Parts(own, engine, TreeRanker([own.bundle.read(name) for name in parts.RANKERS]))
    except ValueError as error:
        raise StartError(f"{folder}: {error}") from error


async def _serve(settings: Settings, loaded: Parts) -> None:
    async with ranking_server(settings, loaded) as server:
        await server.serve(settings)


@asynccontextmanager
async def ranking_server(settings: Settings, loaded: Parts) -> AsyncIterator[RpcServer]:
    """A server that does not listen yet, with its model thread."""
    runner = EngineRunner(loaded.engine.decoder, _limits(settings), loaded.engine.weaver.stops)
    source = _feature_source(settings, loaded.own.provider)
    await runner.start()
    try:
        yield _server(settings, _served(loaded, source, runner), loaded.own.provider)
    finally:
        await runner.close()
        await source.close()


def _limits(settings: Settings) -> EngineLimits:
    return EngineLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_piece_tokens=settings.max_batch_tokens // 2,
        prefix_cache_bytes=settings.prefix_cache_mib << 20,
    )


def _served(loaded: Parts, source: FeatureSource, runner: EngineRunner) -> Served:
    own = loaded.own
    return Served(
        bundle_digest=own.bundle.digest,
        catalogue=own.provider.catalogue,
        popularity=own.popularity,
        features=source,
        space=space_of(own.provider),
        trees=loaded.trees,
        weaver=loaded.engine.weaver,
        runner=runner,
    )


def _feature_source(settings: Settings, provider: FeatureProvider) -> FeatureSource:
    if settings.features is not None:
        return RemoteFeatures(settings.features)
    return EmbeddedFeatures(provider)


def _server(settings: Settings, served: Served, provider: FeatureProvider) -> RpcServer:
    generations: Generations[Served] = Generations()
    generations.add(FIRST, served)
    generations.direct(Traffic(FIRST))
    pipeline = RankPipeline(generations, feature_share=settings.feature_share)
    embedded = settings.features is None
    names = [ranking.SERVICE_NAME, *([feature_service.SERVICE_NAME] if embedded else [])]
    server = RpcServer(
        Admission(settings.max_in_flight),
        names,
        warm_up=lambda: _warm_up(served, provider),
        facts={"bundle_digest": served.bundle_digest, "generation": FIRST},
        reflects=settings.reflection,
    )
    server.metrics.watch(served.runner)
    ranking_pb2_grpc.add_RankingServiceServicer_to_server(
        ranking.RankingService(pipeline, default_deadline_s=settings.default_deadline_s),
        server.grpc,
    )
    if embedded:
        features_pb2_grpc.add_FeatureServiceServicer_to_server(
            feature_service.FeatureService(provider), server.grpc
        )
    return server


async def _warm_up(served: Served, provider: FeatureProvider) -> None:
    """Runs the model, and ranks once with the bundle's own features. Raises StartError."""
    items = served.catalogue.items[:2]
    user = UserQuery(None, tuple(Event(item.item_id, True) for item in items), items)
    query = RankQuery("", user, allow_degraded=False)
    try:
        await served.runner.warm_up()
        features = await asyncio.to_thread(provider.features, user)
        await rank_with_features(served, query, features, None, math.inf)
    except Exception as error:  # whatever it is, such a bundle cannot be served
        raise StartError(f"the bundle's parts do not work together: {error}") from error
