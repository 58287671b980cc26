"""A feature service that answers as it is told: late, never, not at all, or wrongly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np

from rankloom_features.service import SERVICE_NAME, FeatureService
from rankloom_proto.v1 import features_pb2, features_pb2_grpc
from rankloom_ranker.loaded import BundleFeatures
from rankloom_server.admission import Admission
from rankloom_server.rpc.lifecycle import Facts, RpcServer

SLOWER = 10.0
Request = features_pb2.GetUserFeaturesRequest
Response = features_pb2.GetUserFeaturesResponse
Answer = Callable[[], Awaitable[Response]]
Fault = Callable[[Answer], Awaitable[Response]]


class RefusedError(Exception):
    """The service refuses a call; the server around it answers INTERNAL."""


async def healthy(answer: Answer) -> Response:
    """What the bundle says."""
    return await answer()


async def refusing(_: Answer) -> Response:
    """Every call fails at once."""
    raise RefusedError


async def hanging(_: Answer) -> Response:
    """No call is ever answered."""
    await asyncio.Event().wait()
    return Response()


async def slow(answer: Answer) -> Response:
    """Takes SLOWER times as long."""
    started = time.perf_counter()
    found = await answer()
    await asyncio.sleep((SLOWER - 1.0) * (time.perf_counter() - started))
    return found


def spoilt(spoil: Callable[[features_pb2.UserFeatures], object]) -> Fault:
    """Answers in time, with features that ``spoil`` has changed."""

    async def fault(answer: Answer) -> Response:
        found = await answer()
        for each in found.features:
            spoil(each)
        return found

    return fault


def nan_vector(features: features_pb2.UserFeatures) -> None:
    features.vector = np.full(len(features.vector) // 4, np.nan, "<f4").tobytes()


def other_dimension(features: features_pb2.UserFeatures) -> None:
    features.vector = features.vector[:-4]


def other_version(features: features_pb2.UserFeatures) -> None:
    features.feature_version = "other"


def other_user(features: features_pb2.UserFeatures) -> None:
    features.user_id = "somebody else"


class FaultyService(FeatureService):
    """The bundle's service behind a fault that can be changed at any time."""

    def __init__(self, features: BundleFeatures) -> None:
        super().__init__(features, features.provider.events)
        self.fault: Fault = healthy

    async def GetUserFeatures(
        self, request: Request, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Response:
        answer = super().GetUserFeatures
        return await self.fault(lambda: answer(request, context))


@asynccontextmanager
async def faulty_service(features: BundleFeatures) -> AsyncIterator[tuple[FaultyService, int]]:
    """The service, and the port that it listens on."""

    async def no_warm_up() -> Facts:
        return {}

    server = RpcServer(Admission(1024), [SERVICE_NAME], warm_up=no_warm_up, reflects=False)
    service = FaultyService(features)
    features_pb2_grpc.add_FeatureServiceServicer_to_server(service, server.grpc)
    port = await server.start("127.0.0.1", 0)
    await server.open()
    try:
        yield service, port
    finally:
        await server.grpc.stop(None)
