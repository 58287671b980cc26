"""Real servers on free ports, and what a failed call says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from rankloom_proto.v1 import features_pb2, features_pb2_grpc
from rankloom_server.admission import Admission
from rankloom_server.config import Settings
from rankloom_server.rpc.lifecycle import Facts, RpcServer

if TYPE_CHECKING:  # generic in the stubs only
    FeaturesCall = grpc.aio.UnaryUnaryCall[
        features_pb2.GetUserFeaturesRequest, features_pb2.GetUserFeaturesResponse
    ]
else:
    FeaturesCall = grpc.aio.UnaryUnaryCall
NO_BUNDLE = Path("no-bundle")
Behaviour = Callable[
    [features_pb2.GetUserFeaturesRequest], Awaitable[features_pb2.GetUserFeaturesResponse]
]


def settings(**values: object) -> Settings:
    """Settings by flat names, such as ``dtype="bfloat16"``; float32 on every machine."""
    return Settings.from_flat({"bundle": NO_BUNDLE, "port": 0, "dtype": "float32", **values})


@asynccontextmanager
async def opened(server: RpcServer) -> AsyncIterator[str]:
    """The address of a server that takes calls."""
    port = await server.start("127.0.0.1", 0)
    try:
        await server.open()
        yield f"127.0.0.1:{port}"
    finally:
        await server.grpc.stop(None)


async def no_warm_up() -> Facts:
    return {}


class BehavingService(features_pb2_grpc.FeatureServiceServicer):
    """Answers as it is told."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def GetUserFeatures(
        self, request: features_pb2.GetUserFeaturesRequest, context: object
    ) -> features_pb2.GetUserFeaturesResponse:
        return await self.behaviour(request)


def behaving_server(
    behaviour: Behaviour, *, max_in_flight: int = 8, connection_age_s: float = 0.0
) -> RpcServer:
    server = RpcServer(
        Admission(max_in_flight),
        ["rankloom.v1.FeatureService"],
        warm_up=no_warm_up,
        reflects=False,
        connection_age_s=connection_age_s,
    )
    service = BehavingService(behaviour)  # type: ignore[abstract]  # no other method is called
    features_pb2_grpc.add_FeatureServiceServicer_to_server(service, server.grpc)
    return server


@dataclass(frozen=True, slots=True)
class Failure:
    """What the caller of a failed call is told."""

    code: grpc.StatusCode
    message: str
    field: str | None
    reason: str | None
    retry_after_s: float | None
    metadata: dict[str, str]
    raw: str


def send_bytes(channel: grpc.aio.Channel, method: str, payload: bytes) -> Awaitable[object]:
    call: Any = channel.unary_unary(method)
    answer: Awaitable[object] = call(payload, timeout=10)
    return answer


async def failure_of(call: Awaitable[object]) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure_in(caught.value)


def failure_in(error: Any) -> Failure:  # noqa: ANN401
    metadata = dict(error.trailing_metadata() or ())
    packed = metadata.get("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(packed)
    bad, info, retry = (
        _unpacked(status, kind)
        for kind in (
            error_details_pb2.BadRequest,
            error_details_pb2.ErrorInfo,
            error_details_pb2.RetryInfo,
        )
    )
    return Failure(
        error.code(),
        error.details() or "",
        bad.field_violations[0].field if bad else None,
        info.reason if info else None,
        retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
        dict(info.metadata) if info else {},
        f"{error!r} {packed!r}",
    )


def _unpacked(status: Any, kind: Any) -> Any:  # noqa: ANN401
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            return message
    return None
