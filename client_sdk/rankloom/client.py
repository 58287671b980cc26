"""The blocking client. `aio` has the same one for asyncio; all but the transport is shared."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rankloom.connection import Connection, translating
from rankloom.policy import DEFAULT_TIMEOUT_S, checked_timeout_s
from rankloom.requests import build_explain_request, build_request
from rankloom.responses import ExplanationParts, parse_response
from rankloom.results import Event, ExplainOptions, Explanation, Item, Ranking, RankOptions
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

if TYPE_CHECKING:
    from grpc import _CallIterator

_DEFAULTS: Final = RankOptions()
_EXPLAIN_DEFAULTS: Final = ExplainOptions()


class Client(Connection):
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
        self._timeout_s = checked_timeout_s(timeout_s)
        super().__init__(target, root_certificates, plaintext)
        self._stub = ranking_pb2_grpc.RankingServiceStub(self._channel)

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
        with translating(request.request_id):
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
        with translating(request.request_id):
            call = self._stub.Explain(request, timeout=limit_s)
        return ExplanationStream(call, request.request_id)


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
        with translating(self._parts.request_id):
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
