"""Real gRPC servers on free ports: they record what arrives, and answer as the test says.

`rankloom.testing` hides the wire. These show it: bytes, headers, any status with any details.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import status_pb2

from rankloom.testing._in_process import InProcessServer
from rankloom_proto.v1.features_pb2 import (
    ForgetUserRequest,
    GetModelInfoRequest,
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    RecordEventsRequest,
)
from rankloom_proto.v1.ranking_pb2 import (
    ExplainRequest,
    ExplainResponse,
    Explanation,
    ExplanationChunk,
    RankRequest,
    RankResponse,
)

# Takes the request of the method that is called, and answers as that method does.
Behaviour = Callable[[Any, grpc.ServicerContext], Any]


@dataclass(frozen=True, slots=True)
class Received:
    payload: bytes
    time_remaining_s: float
    user_agent: str

    @property
    def request(self) -> RankRequest:
        return RankRequest.FromString(self.payload)

    @property
    def explain_request(self) -> ExplainRequest:
        return ExplainRequest.FromString(self.payload)

    @property
    def features_request(self) -> GetUserFeaturesRequest:
        return GetUserFeaturesRequest.FromString(self.payload)


class RecordingServer(InProcessServer):
    """Answers call n with behaviour n, and every later call with the last one."""

    def __init__(self, *, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.received: list[Received] = []
        self._behaviours: list[Behaviour] = [answer()]
        self._lock = threading.Lock()
        super().__init__(self._add_services, port=port, credentials=credentials)

    def will(self, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)

    def _add_services(self, server: grpc.Server) -> None:
        # No deserializers: the bytes themselves are recorded.
        rank: grpc.RpcMethodHandler[bytes, Any] = grpc.unary_unary_rpc_method_handler(
            self._handler(RankRequest), response_serializer=RankResponse.SerializeToString
        )
        explain: grpc.RpcMethodHandler[bytes, Any] = grpc.unary_stream_rpc_method_handler(
            self._handler(ExplainRequest), response_serializer=ExplainResponse.SerializeToString
        )
        features: grpc.RpcMethodHandler[bytes, Any] = grpc.unary_unary_rpc_method_handler(
            self._handler(GetUserFeaturesRequest),
            response_serializer=GetUserFeaturesResponse.SerializeToString,
        )
        events: dict[str, grpc.RpcMethodHandler[bytes, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(
                self._handler(kind), response_serializer=_to_bytes
            )
            for name, kind in (
                ("RecordEvents", RecordEventsRequest),
                ("ForgetUser", ForgetUserRequest),
                ("GetModelInfo", GetModelInfoRequest),
            )
        }
        services = {
            "rankloom.v1.RankingService": {"Rank": rank, "Explain": explain},
            "rankloom.v1.FeatureService": {"GetUserFeatures": features, **events},
        }
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(*service) for service in services.items()]
        )

    def _handler(self, kind: type[Message]) -> Behaviour:
        def handle(payload: bytes, context: grpc.ServicerContext) -> object:
            return self._record(payload, context)(kind.FromString(payload), context)

        return handle

    def _record(self, payload: bytes, context: grpc.ServicerContext) -> Behaviour:
        metadata = dict(cast("Iterable[tuple[str, str]]", context.invocation_metadata()))
        call = Received(payload, context.time_remaining(), metadata["user-agent"])
        with self._lock:
            behaviour = self._behaviours[min(len(self.received), len(self._behaviours) - 1)]
            self.received.append(call)
        return behaviour


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()


def answer(**fields: object) -> Behaviour:
    """Answer with these fields, the request's id and its candidates in reverse."""

    def behave(request: RankRequest, _: grpc.ServicerContext) -> RankResponse:
        response = RankResponse(**{"request_id": request.request_id, **fields})  # type: ignore[arg-type]
        for index, candidate in enumerate(reversed(request.candidates)):
            score = 2.0 - index
            response.items.add(
                item_id=candidate.item_id,
                rank=index + 1,
                score=score,
                probability=1 / (1 + 2.0**-score),
                scored=True,
            )
        return response

    return behave


def fail(code: grpc.StatusCode, message: str = "no", *details: Message) -> Behaviour:
    """Refuse with a status and, if given, google.rpc details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = PackedAny()
        packed.Pack(detail)
        status.details.append(packed)
    return fail_with_bytes(code, message, status.SerializeToString() if details else None)


def fail_with_bytes(code: grpc.StatusCode, message: str, payload: bytes | None) -> Behaviour:
    """Refuse with a status and these bytes as its details."""

    def behave(_: RankRequest, context: grpc.ServicerContext) -> RankResponse:
        if payload is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", payload),))
        context.abort(code, message)

    return behave


def tell(*texts: str, **final: object) -> Behaviour:
    """Answer with these pieces of text, and these fields of the final message."""

    def behave(request: ExplainRequest, _: grpc.ServicerContext) -> Iterator[ExplainResponse]:
        for text in texts:
            yield chunk(text)
        given = {"request_id": request.request_id, **final}
        yield ExplainResponse(final=Explanation(**given))  # type: ignore[arg-type]

    return behave


def chunk(text: str) -> ExplainResponse:
    return ExplainResponse(chunk=ExplanationChunk(text=text))


def tell_then(text: str, then: Behaviour) -> Behaviour:
    """Answer with a piece of text, and go on as `then` does."""

    def behave(request: ExplainRequest, context: grpc.ServicerContext) -> Iterator[ExplainResponse]:
        yield chunk(text)
        yield from then(request, context)

    return behave


class Silence:
    """Sends these pieces, and nothing more until the call ends; then `ended` is set."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self.ended = threading.Event()

    def __call__(
        self, request: ExplainRequest, context: grpc.ServicerContext
    ) -> Iterator[ExplainResponse]:
        context.add_callback(self.ended.set)
        yield from map(chunk, self._texts)
        self.ended.wait(30.0)


def wait(seconds: float) -> Behaviour:
    """Answer after that time, or not at all if the call ends earlier."""

    def behave(request: RankRequest, context: grpc.ServicerContext) -> RankResponse:
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(seconds)
        return cast("RankResponse", answer()(request, context))

    return behave
