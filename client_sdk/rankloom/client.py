"""The blocking client. `aio` has the same one for asyncio; all but the transport is shared."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import grpc

from rankloom.errors import ClientClosedError, ConnectionFailedError, error_from_rpc
from rankloom.policy import CHANNEL_OPTIONS, DEFAULT_TIMEOUT_S, checked_timeout_s, uses_tls
from rankloom.requests import build_request
from rankloom.responses import parse_response
from rankloom.results import Event, Item, Ranking, RankOptions
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

_DEFAULTS: Final = RankOptions()


class Client:
    """Ranks items on a rankloom server; one client serves all threads of a process.

    `target` is "host:port", or any gRPC target. The connection is encrypted unless the target is
    this machine or `plaintext` is set; `root_certificates` (PEM) names who to trust in place of
    the public authorities. `timeout_s` bounds each call, its retries included.

        with Client("localhost:50051") as client:
            ranking = client.rank(["318", "50", "2571"], user="42")
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
        self._closed = False

    def rank(
        self,
        items: Sequence[str | Item],
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: RankOptions = _DEFAULTS,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ranking:
        """Return the items in the order that the user will like them, best first.

        The user is named by `user`, or described by `history`, oldest event first; an empty
        history is a new user. Raises InvalidRequestError before anything is sent where the
        arguments make no request, and otherwise whatever the server answers (see `errors`).
        """
        request = build_request(
            items, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)
        return parse_response(self._call(request, limit_s))

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return once a server is connected, or raise ConnectionFailedError after `timeout_s`."""
        limit_s = checked_timeout_s(timeout_s)
        if self._closed:
            raise ClientClosedError("the client is closed")
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=limit_s)
        except grpc.FutureTimeoutError:
            message = f"no server at {self._target} within {limit_s:g} s"
            raise ConnectionFailedError(message) from None
        finally:
            ready.cancel()

    def close(self) -> None:
        """Close the connection; calls in flight end with CallCancelledError."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, request: ranking_pb2.RankRequest, timeout_s: float) -> ranking_pb2.RankResponse:
        try:
            return self._stub.Rank(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_from_rpc(error, request.request_id) from error
        except ValueError as error:
            # All that gRPC says of a closed channel; the flag alone would leave a race.
            raise ClientClosedError("the client is closed") from error


def _open_channel(target: str, root_certificates: bytes | None, plaintext: bool) -> grpc.Channel:
    has_roots = root_certificates is not None
    if not uses_tls(target, has_root_certificates=has_roots, plaintext=plaintext):
        return grpc.insecure_channel(target, CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(root_certificates)
    return grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
