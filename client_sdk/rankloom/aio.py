"""The asyncio client. `client` has the same one for threads; all but the transport is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

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
from rankloom.requests import build_request
from rankloom.responses import parse_response
from rankloom.results import Event, Item, Ranking, RankOptions
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

_DEFAULTS: Final = RankOptions()


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
        return parse_response(await self._call(request, limit_s))

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

    async def _call(
        self, request: ranking_pb2.RankRequest, timeout_s: float
    ) -> ranking_pb2.RankResponse:
        try:
            return await self._stub.Rank(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_from_rpc(error, request.request_id) from error
        except grpc.aio.UsageError as error:
            raise ClientClosedError("the client is closed") from error
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            # Nobody cancelled the caller's task: gRPC ends calls of a closing channel this way.
            details = ErrorDetails(status="CANCELLED", request_id=request.request_id)
            raise CallCancelledError("the client was closed during the call", details) from error


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
