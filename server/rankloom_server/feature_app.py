"""The feature server: FeatureService alone, without a language model."""

from __future__ import annotations

import asyncio

from rankloom_features.provider import UserQuery
from rankloom_features.service import SERVICE_NAME, FeatureService
from rankloom_proto.v1 import features_pb2_grpc
from rankloom_server import logs
from rankloom_server.admission import Admission
from rankloom_server.config import Settings
from rankloom_server.loading import FeatureParts, keyring_of, load_features
from rankloom_server.rpc.lifecycle import RpcServer


def serve_features(settings: Settings) -> None:
    """Serves until a signal to stop. Raises StartError."""
    logs.configure(settings.log_level)
    asyncio.run(_serve(settings, load_features(settings.bundle, keyring_of(settings))))


async def _serve(settings: Settings, loaded: FeatureParts) -> None:
    await feature_server(settings, loaded).serve(settings)


def feature_server(settings: Settings, loaded: FeatureParts) -> RpcServer:
    """A server that does not listen yet."""

    async def warm_up() -> None:
        await asyncio.to_thread(loaded.provider.features, UserQuery(None, ()))

    server = RpcServer(
        Admission(settings.max_in_flight),
        [SERVICE_NAME],
        warm_up=warm_up,
        facts={"bundle_digest": loaded.bundle.digest},
        reflects=settings.reflection,
    )
    features_pb2_grpc.add_FeatureServiceServicer_to_server(
        FeatureService(loaded.provider), server.grpc
    )
    return server
