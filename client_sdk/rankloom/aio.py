"""The asyncio client. `client` has the same one for threads; all but the transport is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc
import grpc.aio

from rankloom.errors import (
    CallCancelledError,
    ClientClosedError,
    ConnectionFailedError,
    ErrorDetails,
    error_from_rpc,
)
from rankloom.policy import CHANNEL_OPTIONS, DEFAULT_TIMEOUT_S, checked_timeout_s, uses_tls
from rankloom.requests import build_explain_request, build_request
from rankloom.responses import ExplanationParts, parse_response
from rankloom.results import Event, ExplainOptions, Explanation, Item, Ranking, RankOptions
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

if TYPE_CHECKING:  # generic in the stubs only
    _ExplainCall = grpc.aio.UnaryStreamCall[ranking_pb2.ExplainRequest, ranking_pb2.ExplainResponse]

_DEFAULTS: Final = RankOptions()
_EXPLAIN_DEFAULTS: Final = ExplainOptions()


class AsyncClient:
    """Ranks items on a rankloom server; make it inside the event loop that uses it.

    The arguments are those of `Client`.

        async with AsyncClient("localhost:50051") as client:
            ranking = await client.rank(["318", "50", "2571"], user="42")
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        root_certificates: bytes | None = None,
        plaintext: bool = False,
    ) -> None:
        self._target = target
        self._timeout_s = checked_timeout_s(timeout_s)
        self._channel = _open_channel(target, root_certificates, plaintext)
        self._stub = ranking_pb2_grpc.RankingServiceStub(self._channel)

    async def rank(
        self,
        items: Sequence[str | Item],
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: RankOptions = _DEFAULTS,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ranking:
        """Return the items in the order that the user will like them, as `Client.rank` does."""
        request = build_request(
            items, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)
        with _translating(request.request_id):
            response = await self._stub.Rank(request, timeout=limit_s)
        return parse_response(response)

    def explain(
        self,
        item: str | Item,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: ExplainOptions = _EXPLAIN_DEFAULTS,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> AsyncExplanationStream:
        """Return a text about one item for one user, as `Client.explain` does.

        async for text in client.explain("318", user="42"): print(text, end="")
        explanation = await client.explain("318", user="42").result()
        """
        request = build_explain_request(
            item, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)
        with _translating(request.request_id):
            call = self._stub.Explain(request, timeout=limit_s)
        return AsyncExplanationStream(call, request.request_id)

    async def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return once a server is connected, or raise ConnectionFailedError after `timeout_s`."""
        limit_s = checked_timeout_s(timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                await self._channel.channel_ready()
        except TimeoutError:
            message = f"no server at {self._target} within {limit_s:g} s"
            raise ConnectionFailedError(message) from None
        except grpc.aio.UsageError as error:
            raise ClientClosedError("the client is closed") from error

    async def close(self) -> None:
        """Close the connection; calls in flight end with CallCancelledError."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncExplanationStream:
    """The text of `AsyncClient.explain` in pieces; otherwise as `ExplanationStream`."""

    def __init__(self, call: _ExplainCall, request_id: str) -> None:
        self._call = call
        self._parts = ExplanationParts(request_id)

    def __del__(self) -> None:
        self._call.cancel()  # gRPC's own object is in a cycle, and would wait for the collector

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        with _translating(self._parts.request_id):
            async for response in self._call:
                if text := self._parts.add(response):
                    return text
        raise StopAsyncIteration

    async def result(self) -> Explanation:
        """Return the text and its verdict, once all has arrived."""
        async for _ in self:
            pass
        return self._parts.explanation()

    async def close(self) -> None:
        """End the call, if it has not ended; what has not been read by then is lost."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


@contextmanager
def _translating(request_id: str) -> Iterator[None]:
    """Raise what the transport says of a call as an error of the SDK."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, request_id) from error
    except grpc.aio.UsageError as error:
        raise ClientClosedError("the client is closed") from error
    except asyncio.CancelledError as error:
        if _is_being_cancelled():
            raise
        # Nobody cancelled the caller's task: gRPC ends a call that is closed on this side so.
        details = ErrorDetails(status="CANCELLED", request_id=request_id)
        raise CallCancelledError("the call was closed before its end", details) from error


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _open_channel(
    target: str, root_certificates: bytes | None, plaintext: bool
) -> grpc.aio.Channel:
    has_roots = root_certificates is not None
    if not uses_tls(target, has_root_certificates=has_roots, plaintext=plaintext):
        return grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(root_certificates)
    return grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS)
