"""The feature server: FeatureService alone, without a language model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from rankloom_adapters.bundle import open_bundle
from rankloom_adapters.signing import Keyring
from rankloom_features.event_store.memory import NO_EVENTS
from rankloom_features.event_store.store import EventStore
from rankloom_features.provider import UserQuery
from rankloom_features.service import SERVICE_NAME, FeatureService, Provider
from rankloom_proto.v1 import features_pb2_grpc
from rankloom_ranker.loaded import BundleFeatures, load_features
from rankloom_server import logs
from rankloom_server.admission import Admission
from rankloom_server.config import ServerSettings, Settings
from rankloom_server.errors import StartError
from rankloom_server.keys import keyring_of
from rankloom_server.metrics import ServerMetrics
from rankloom_server.rpc.lifecycle import Facts, RpcServer
from rankloom_server.rpc.listening import check_all_free
from rankloom_server.stored_events import opened_events


def serve_features(settings: Settings) -> None:
    """Serves until a signal to stop. Raises StartError."""
    logs.configure(settings.server.log_level)
    asyncio.run(check_all_free((settings.server.address, settings.server.metrics_address)))
    with opened_events(settings) as events:
        keyring = keyring_of(settings.loading.bundle_keys)
        digest, features = opened_features(settings.bundle, keyring, events)
        asyncio.run(_serve(settings.server, digest, features))


async def _serve(settings: ServerSettings, digest: str, features: BundleFeatures) -> None:
    await feature_server(settings, features, digest).serve(settings)


def opened_features(
    folder: Path, keyring: Keyring | None = None, events: EventStore = NO_EVENTS
) -> tuple[str, BundleFeatures]:
    """A bundle's digest and features. Raises StartError, also for its signature."""
    try:
        bundle = open_bundle(folder, check=keyring.check_manifest if keyring else None)
        return bundle.digest, load_features(bundle, events)
    except ValueError as error:
        raise StartError(f"{folder}: {error}") from error


def feature_server(settings: ServerSettings, features: BundleFeatures, digest: str) -> RpcServer:
    """A server that does not listen yet."""

    async def warm_up() -> Facts:
        await asyncio.to_thread(features.provider.features, UserQuery(None, ()))
        return {"bundle_digest": digest}

    return feature_service_server(settings, features, features.provider.events, warm_up)


def feature_service_server(
    settings: ServerSettings,
    source: Provider,
    store: EventStore,
    warm_up: Callable[[], Awaitable[Facts]],
    metrics: ServerMetrics | None = None,
) -> RpcServer:
    """A server of FeatureService on these features and events. It does not listen yet."""
    server = RpcServer(
        Admission(settings.max_in_flight),
        [SERVICE_NAME],
        warm_up=warm_up,
        reflects=settings.reflection,
        metrics=metrics,
        connection_age_s=settings.connection_age_s,
        max_message_bytes=settings.max_message_mib << 20,
    )
    service = FeatureService(source, store)
    server.metrics.watch_events(service)
    features_pb2_grpc.add_FeatureServiceServicer_to_server(service, server.grpc)
    return server
