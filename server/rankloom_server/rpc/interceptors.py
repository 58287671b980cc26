"""The outermost layer of every call: bytes in, an answer or a known status out.

Requests are parsed here rather than by gRPC, which reports malformed ones as the
server's fault, and no exception passes, since gRPC would send its text to the caller.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_server import logs
from rankloom_server.admission import Admission
from rankloom_server.errors import MalformedError
from rankloom_server.metrics import ServerMetrics
from rankloom_server.rpc.field_counts import check_field_counts
from rankloom_server.rpc.identity import Token
from rankloom_server.rpc.status import refusal_of

_OURS = "/rankloom."  # health and reflection are answered whatever the load
_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
}

_COUNTED = (  # GetUserFeatures is not: 256 users with 500 candidates are a valid request
    *ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].methods,
    features_pb2.DESCRIPTOR.services_by_name["FeatureService"].methods_by_name["RecordEvents"],
)
_MESSAGES = {
    f"/{each.containing_service.full_name}/{each.name}": each.input_type for each in _COUNTED
}

if TYPE_CHECKING:  # gRPC's classes are generic in their stubs only
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
    Answer = Callable[[bytes, Context], Awaitable[object]]


class Boundary(grpc.aio.ServerInterceptor):
    """Guards all methods that take one message; limits and logs those of rankloom."""

    def __init__(
        self, admission: Admission, metrics: ServerMetrics, token: Token | None = None
    ) -> None:
        self._admission, self._metrics, self._token = admission, metrics, token
        self._guarded: dict[str, Handler] = {}  # of the methods that have been called

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's handler, guarded; None where there is no such method."""
        method = handler_call_details.method
        if method not in self._guarded:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._guarded[method] = self._guard(handler, method)
        return self._guarded[method]

    def _guard(self, handler: Handler, method: str) -> Handler:
        is_ours = method.startswith(_OURS)
        if handler.request_streaming and not is_ours:
            return handler
        parse = _parsing_stream(handler) if handler.request_streaming else _parsing(handler, method)
        guarded = _GuardedMethod(method, parse, self._admission, self._metrics, self._token)
        answer = guarded.answer if is_ours else guarded.translated
        make: Any = _MAKERS[handler.request_streaming, handler.response_streaming]
        changed: Handler = make(answer, response_serializer=handler.response_serializer)
        return changed


class _GuardedMethod:
    """One method. A call passes, from the outside in: recorded, translated, admitted, parsed."""

    def __init__(
        self,
        method: str,
        parse: Answer,
        admission: Admission,
        metrics: ServerMetrics,
        token: Token | None,
    ) -> None:
        self._method, self._name = method, method.rpartition("/")[2]
        self._parse, self._admission = parse, admission
        self._metrics, self._token = metrics, token

    async def answer(self, payload: bytes, context: Context) -> object:
        """Counts and logs the call once its answer is on its way: nobody waits for that."""
        started, code = time.perf_counter(), "CANCELLED"  # stays so where the caller leaves
        logs.forget()
        logs.note(method=self._method)
        try:
            answered = await self.translated(payload, context, self._admitted)
            code = "OK"
            return answered
        except grpc.aio.AbortError:
            code = context.code().name
            raise
        finally:
            seconds = time.perf_counter() - started
            asyncio.get_running_loop().call_soon(self._record, code, seconds)

    async def translated(
        self, payload: bytes, context: Context, inner: Answer | None = None
    ) -> object:
        """Errors become statuses."""
        try:
            return await (inner or self._parse)(payload, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await refusal_of(error).send(context)

    async def _admitted(self, payload: bytes, context: Context) -> object:
        if self._token:
            self._token.check(context.invocation_metadata() or ())
        with self._admission.admit(self._name):
            return await self._parse(payload, context)

    def _record(self, code: str, seconds: float) -> None:
        self._metrics.count_call(self._name, code, seconds)
        logs.write("call", code=code, total_ms=round(seconds * 1e3, 3))


def _parsing(handler: Handler, method: str) -> Answer:
    """One message in, one or a stream out."""
    counted = _MESSAGES.get(method)
    behaviour: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
    parse: Any = handler.request_deserializer

    async def answer(payload: bytes, context: Context) -> object:
        if counted is not None:
            check_field_counts(payload, counted)
        try:
            request = parse(payload)
        except DecodeError as error:
            raise MalformedError from error
        answered = behaviour(request, context)
        if isinstance(answered, AsyncGenerator):
            await _write(answered, context)
            return None
        return await answered

    return answer


def _parsing_stream(handler: Handler) -> Answer:
    """A stream of messages in, one out."""
    behaviour: Any = handler.stream_unary
    parse: Any = handler.request_deserializer

    async def answer(payloads: Any, context: Context) -> object:  # noqa: ANN401
        answered: object = await behaviour(_parsed(payloads, parse), context)
        return answered

    return answer


async def _parsed(payloads: AsyncIterator[bytes], parse: Any) -> AsyncIterator[object]:  # noqa: ANN401
    async for payload in payloads:
        try:
            yield parse(payload)
        except DecodeError as error:
            raise MalformedError from error


async def _write(answers: AsyncGenerator[object, None], context: Context) -> None:
    """Sends a stream; closes its source also where the caller leaves in the middle."""
    async with aclosing(answers):
        async for each in answers:
            await context.write(each)
