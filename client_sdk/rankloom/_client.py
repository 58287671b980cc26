"""The blocking client of RankingService. `aio` has its asyncio twin; they share all but gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rankloom._connection import Connection, Translating
from rankloom._requests import AnySource, build_explain_request, build_request
from rankloom._responses import ExplanationParts, parse_response
from rankloom._results import (
    Event,
    ExplainOptions,
    Explanation,
    ExplanationSource,
    Item,
    Ranking,
    RankOptions,
)
from rankloom._retrieval_messages import (
    build_recommend_request,
    build_retrieve_request,
    parse_recommendation,
    parse_retrieval,
)
from rankloom._retrievals import Recommendation, RecommendOptions, Retrieval, RetrieveOptions
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

if TYPE_CHECKING:
    from grpc import _CallIterator

_DEFAULTS: Final = RankOptions()
_EXPLAIN_DEFAULTS: Final = ExplainOptions()
_RETRIEVE_DEFAULTS: Final = RetrieveOptions()
_RECOMMEND_DEFAULTS: Final = RecommendOptions()


class Client(Connection):
    """Ranks items on a rankloom server; all threads of a process may share one client.

        with Client("localhost:50051") as client:
            ranking = client.rank(["318", "50", "2571"], user="42")

    `target`: "host:port", or any gRPC target.
    `timeout_s`: the time that each call has, its retries included.
    `root_certificates`: PEM; the authorities to trust instead of the public ones.
    `plaintext`: do not encrypt. A connection to this machine is not encrypted anyway, unless
    `root_certificates` is given.
    """

    @property
    def _stub(self) -> ranking_pb2_grpc.RankingServiceStub:
        return self._stub_of(ranking_pb2_grpc.RankingServiceStub)

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
        """Return the items in the order in which the user will like them, best first.

        Give the user's id as `user`, or the user's events as `history`, oldest first; an empty
        history is a new user. Raises InvalidRequestError before anything is sent if an argument
        is wrong, and any other error of `rankloom.errors` that the server answers.
        """
        request = build_request(
            items, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._limit_s(timeout_s)
        with self._translating(request.request_id):
            response = self._stub.Rank(request, timeout=limit_s)
        return parse_response(response)

    def retrieve(
        self,
        k: int,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: RetrieveOptions = _RETRIEVE_DEFAULTS,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Retrieval:
        """Return the k items of the server's catalogue that are nearest to the user.

        No language model takes part. Give the user as for `rank`; the items of the user's events
        are left out unless `options` say otherwise. Raises as `rank` does.
        """
        request = build_retrieve_request(
            k, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._limit_s(timeout_s)
        with self._translating(request.request_id):
            response = self._stub.Retrieve(request, timeout=limit_s)
        return parse_retrieval(response)

    def recommend(
        self,
        k: int,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: RecommendOptions = _RECOMMEND_DEFAULTS,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Recommendation:
        """Return the best k items of the server's catalogue: retrieved, then ranked, in one call.

        One revision does both within `timeout_s`. Give the user as for `rank`. Raises as `rank`
        does.
        """
        request = build_recommend_request(
            k, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._limit_s(timeout_s)
        with self._translating(request.request_id):
            response = self._stub.Recommend(request, timeout=limit_s)
        return parse_recommendation(response)

    def explain(
        self,
        item: str | Item,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: ExplainOptions = _EXPLAIN_DEFAULTS,
        source: AnySource = ExplanationSource.LIVE,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> ExplanationStream:
        """Return a text about one item for one user, to be read while it is written.

            for text in client.explain("318", user="42"): print(text, end="")
            explanation = client.explain("318", user="42").result()

        Give the user as for `rank`. The server ends the text early enough for the verdict to
        arrive within `timeout_s`. With `source="stored"` no text is written: the server answers
        with the rationale that its bundle has of the user's own review of the item, within
        milliseconds and without a verdict; only `revision` may be set in `options`. Raises
        InvalidRequestError if an argument is wrong; the stream raises what the server answers,
        such as NotFoundError where no explanation is stored.
        """
        request = build_explain_request(
            item,
            user=user,
            history=history,
            options=options,
            source=source,
            request_id=request_id,
        )
        limit_s = self._limit_s(timeout_s)
        with self._translating(request.request_id):
            call = self._stub.Explain(request, timeout=limit_s)
        return ExplanationStream(call, request.request_id, self._translating)


class ExplanationStream:
    """The text of `Client.explain` in pieces, as they arrive; `result` has the whole.

    Each piece comes once. Leaving its `with` block, or `close`, tells the server to stop.
    """

    def __init__(
        self,
        call: _CallIterator[ranking_pb2.ExplainResponse],
        request_id: str,
        translating: Translating,
    ) -> None:
        self._call = call
        self._parts = ExplanationParts(request_id)
        self._translating = translating

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        with self._translating(self._parts.request_id):
            for response in self._call:
                if text := self._parts.add(response):
                    return text
        raise StopIteration

    def result(self) -> Explanation:
        """Read to the end, and return the whole text with its verdict."""
        for _ in self:
            pass
        return self._parts.explanation()

    def close(self) -> None:
        """End the call if it still runs; unread pieces are lost."""
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
