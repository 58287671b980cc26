"""The ranking server: loads bundles, answers RankingService, and features on another port."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch

from rankloom_adapters.rate_limit import RateLimiter
from rankloom_adapters.revision import Revisions
from rankloom_engine.loading import load_decoder
from rankloom_engine.memory import keep_freed_memory
from rankloom_engine.pool import DecoderLoader
from rankloom_features.event_store.store import EventStore
from rankloom_features.service import SERVICE_NAME
from rankloom_proto.v1 import ranking_pb2_grpc
from rankloom_server import ranking
from rankloom_server.active_features import ActiveFeatures
from rankloom_server.admission import Admission
from rankloom_server.config import Settings
from rankloom_server.deployment import Deployment, ManagedDeployment, StaticDeployment
from rankloom_server.feature_app import feature_service_server
from rankloom_server.pipeline import RankPipeline
from rankloom_server.retrieval_pipeline import RetrievalPipeline
from rankloom_server.revision_loader import RevisionLoader, ServedRevision
from rankloom_server.rollout import rollout_server
from rankloom_server.rpc.lifecycle import Facts, RpcServer
from rankloom_server.served_log import ServedLog, opened_log
from rankloom_server.state import ServerState
from rankloom_server.stored_events import opened_events
from rankloom_server.stored_explanations import StoredExplanations
from rankloom_server.watchdog import Watchdog, end_process


def run_server(settings: Settings, state: ServerState | None, limiter: RateLimiter) -> None:
    """Serves until a signal to stop. ``limiter``: the one of the state. Raises StartError."""
    keep_freed_memory()
    torch.set_num_threads(settings.engine.threads)
    asyncio.run(_serve(settings, state, limiter))


async def _serve(settings: Settings, state: ServerState | None, limiter: RateLimiter) -> None:
    async with servers(settings, state, limiter) as (server, admin):
        await server.serve(settings.server, admin, settings.rollout.address)


@asynccontextmanager
async def servers(
    settings: Settings,
    state: ServerState | None = None,
    limiter: RateLimiter | None = None,
    load: DecoderLoader = load_decoder,
) -> AsyncIterator[tuple[RpcServer, RpcServer | None]]:
    """The ranking server, and with a state the server of RolloutService; neither listens yet.

    ``limiter``: the one that the state reads bundles by. ``load``: makes decoders. Raises
    StartError where the users' events cannot be opened.
    """
    with opened_events(settings) as events, opened_log(settings.learning) as served_log:
        async with _servers(settings, state, limiter, load, events, served_log) as made:
            yield made


@asynccontextmanager
async def _servers(
    settings: Settings,
    state: ServerState | None,
    limiter: RateLimiter | None,
    load: DecoderLoader,
    events: EventStore,
    served_log: ServedLog | None,
) -> AsyncIterator[tuple[RpcServer, RpcServer | None]]:
    loader = RevisionLoader(
        settings.engine, settings.loading, settings.features.address, limiter, load, events
    )
    revisions = Revisions[ServedRevision]()
    deployment = (
        ManagedDeployment(
            state,
            loader,
            revisions,
            retire_s=settings.rollout.retire_s,
            max_bundle_bytes=settings.loading.max_bundle_mib << 20,
        )
        if state
        else StaticDeployment(loader, revisions)
    )
    watching: asyncio.Task[None] | None = None
    try:
        server = _server(settings, loader, revisions, deployment, events, served_log)
        end = end_process if settings.engine.exit_on_stall else None
        dog = Watchdog(loader.pool, settings.engine.stall_s, server.report_working, end)
        watching = asyncio.create_task(dog.run())
        admin = None
        if isinstance(deployment, ManagedDeployment) and settings.rollout.address:
            admin = rollout_server(
                settings.rollout,
                deployment,
                server.metrics,
                reflects=settings.server.reflection,
            )
        yield server, admin
    finally:
        if watching is not None:
            watching.cancel()
        await deployment.close()
        await loader.close()


def _server(
    settings: Settings,
    loader: RevisionLoader,
    revisions: Revisions[ServedRevision],
    deployment: Deployment,
    events: EventStore,
    served_log: ServedLog | None,
) -> RpcServer:
    async def warm_up() -> Facts:
        facts = await deployment.begin(settings.bundle)
        # What has been loaded stays: a full collection that looks through it all takes a
        # quarter of a second, and some request would wait for it.
        gc.collect()
        gc.freeze()
        hardware = loader.pool.hardware
        return {**facts, "device": hardware.device, "dtype": hardware.dtype}

    admission = Admission(settings.server.max_in_flight)
    server = RpcServer(
        admission,
        [ranking.SERVICE_NAME],
        warm_up=warm_up,
        reflects=settings.server.reflection,
        connection_age_s=settings.server.connection_age_s,
        max_message_bytes=settings.server.max_message_mib << 20,
    )
    server.metrics.watch(loader.pool)
    if served_log is not None:
        server.metrics.watch_served_log(served_log)
    pipeline = RankPipeline(
        revisions,
        feature_share=settings.features.share,
        observer=deployment.observer,
        served_log=served_log,
    )
    server.metrics.watch_rankings(pipeline)
    stored = StoredExplanations(revisions, pipeline)
    server.metrics.watch_stored_explanations(stored)
    ranking_pb2_grpc.add_RankingServiceServicer_to_server(
        ranking.RankingService(
            pipeline,
            RetrievalPipeline(revisions, pipeline, deployment.observer),
            stored,
            admission,
            settings.server.default_deadline_s,
        ),
        server.grpc,
    )
    if address := settings.features.served_at:
        features = feature_service_server(
            settings.server,
            ActiveFeatures(revisions),
            events,
            _no_facts,
            server.metrics,
        )
        server.beside.append((features, address))
    return server


async def _no_facts() -> Facts:
    """The ranking server has loaded everything."""
    return {"service": SERVICE_NAME}
