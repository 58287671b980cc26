"""The blocking client. `aio` has the same one for asyncio; all but the transport is shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc

from rankloom.errors import ClientClosedError, ConnectionFailedError, error_from_rpc
from rankloom.policy import CHANNEL_OPTIONS, DEFAULT_TIMEOUT_S, checked_timeout_s, uses_tls
from rankloom.requests import build_explain_request, build_request
from rankloom.responses import ExplanationParts, parse_response
from rankloom.results import Event, ExplainOptions, Explanation, Item, Ranking, RankOptions
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

if TYPE_CHECKING:
    from grpc import _CallIterator

_DEFAULTS: Final = RankOptions()
_EXPLAIN_DEFAULTS: Final = ExplainOptions()


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
        with _translating(request.request_id):
            response = self._stub.Rank(request, timeout=limit_s)
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
    ) -> ExplanationStream:
        """Return a text about one item for one user, to be read while it is written.

            for text in client.explain("318", user="42"): print(text, end="")
            explanation = client.explain("318", user="42").result()

        The user is given as for `rank`. The text ends in time for the verdict to arrive within
        `timeout_s`. Raises InvalidRequestError where the arguments make no request; what the
        server answers is raised by the stream.
        """
        request = build_explain_request(
            item, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)
        with _translating(request.request_id):
            call = self._stub.Explain(request, timeout=limit_s)
        return ExplanationStream(call, request.request_id)

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


class ExplanationStream:
    """The text of `Client.explain` in pieces, as they arrive; `result` has the whole.

    Each piece comes once. Leaving its `with` block, or `close`, tells the server to stop.
    """

    def __init__(self, call: _CallIterator[ranking_pb2.ExplainResponse], request_id: str) -> None:
        self._call = call
        self._parts = ExplanationParts(request_id)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        with _translating(self._parts.request_id):
            for response in self._call:
                if text := self._parts.add(response):
                    return text
        raise StopIteration

    def result(self) -> Explanation:
        """Return the text and its verdict, once all has arrived."""
        for _ in self:
            pass
        return self._parts.explanation()

    def close(self) -> None:
        """End the call, if it has not ended; what has not been read by then is lost."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def _translating(request_id: str) -> Iterator[None]:
    """Raise what the transport says of a call as an error of the SDK."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error, request_id) from error
    except ValueError as error:
        # All that gRPC says of a closed channel; the flag alone would leave a race.
        raise ClientClosedError("the client is closed") from error


def _open_channel(target: str, root_certificates: bytes | None, plaintext: bool) -> grpc.Channel:
    has_roots = root_certificates is not None
    if not uses_tls(target, has_root_certificates=has_roots, plaintext=plaintext):
        return grpc.insecure_channel(target, CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(root_certificates)
    return grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
