"""The asyncio client of RankingService."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc.aio

from rankloom._connection import Translating
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
from rankloom.aio._connection import AsyncConnection, readable
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

if TYPE_CHECKING:  # generic in the stubs only
    _ExplainCall = grpc.aio.UnaryStreamCall[ranking_pb2.ExplainRequest, ranking_pb2.ExplainResponse]

_DEFAULTS: Final = RankOptions()
_EXPLAIN_DEFAULTS: Final = ExplainOptions()
_RETRIEVE_DEFAULTS: Final = RetrieveOptions()
_RECOMMEND_DEFAULTS: Final = RecommendOptions()


class AsyncClient(AsyncConnection):
    """Ranks items on a rankloom server, from any event loop.

        async with AsyncClient("localhost:50051") as client:
            ranking = await client.rank(["318", "50", "2571"], user="42")

    The arguments are those of `Client`.
    """

    @property
    def _stub(self) -> ranking_pb2_grpc.RankingServiceAsyncStub:
        return self._stub_of(ranking_pb2_grpc.RankingServiceStub)

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
        """Return the items in the order in which the user will like them, as `Client.rank`."""
        request = build_request(
            items, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._limit_s(timeout_s)
        with self._translating(request.request_id):
            response = await self._stub.Rank(request, timeout=limit_s)
        return parse_response(readable(response, request.request_id))

    async def retrieve(
        self,
        k: int,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: RetrieveOptions = _RETRIEVE_DEFAULTS,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Retrieval:
        """Return the k items of the catalogue nearest to the user, as `Client.retrieve`."""
        request = build_retrieve_request(
            k, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._limit_s(timeout_s)
        with self._translating(request.request_id):
            response = await self._stub.Retrieve(request, timeout=limit_s)
        return parse_retrieval(readable(response, request.request_id))

    async def recommend(
        self,
        k: int,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        options: RecommendOptions = _RECOMMEND_DEFAULTS,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Recommendation:
        """Return the best k items of the catalogue, as `Client.recommend`."""
        request = build_recommend_request(
            k, user=user, history=history, options=options, request_id=request_id
        )
        limit_s = self._limit_s(timeout_s)
        with self._translating(request.request_id):
            response = await self._stub.Recommend(request, timeout=limit_s)
        return parse_recommendation(readable(response, request.request_id))

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
    ) -> AsyncExplanationStream:
        """Return a text about one item for one user, as `Client.explain`.

        async for text in client.explain("318", user="42"): print(text, end="")
        explanation = await client.explain("318", user="42").result()
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
        return AsyncExplanationStream(call, request.request_id, self._translating)


class AsyncExplanationStream:
    """The text of `AsyncClient.explain` in pieces; otherwise like `ExplanationStream`."""

    def __init__(self, call: _ExplainCall, request_id: str, translating: Translating) -> None:
        self._call = call
        self._parts = ExplanationParts(request_id)
        self._translating = translating

    def __del__(self) -> None:
        # gRPC's own object is part of a cycle: without this, the call would run until the
        # garbage collector comes.
        self._call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        with self._translating(self._parts.request_id):
            async for response in self._call:
                if text := self._parts.add(readable(response, self._parts.request_id)):
                    return text
        raise StopAsyncIteration

    async def result(self) -> Explanation:
        """Read to the end, and return the whole text with its verdict."""
        async for _ in self:
            pass
        return self._parts.explanation()

    async def close(self) -> None:
        """End the call if it still runs; unread pieces are lost."""
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
