"""RankingService: between the wire and the pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc
from rankloom_ranker.answers import Retrieval, Routing
from rankloom_server import logs
from rankloom_server.admission import Admission
from rankloom_server.parse import asks_for_stored, parse_explain, parse_rank, parse_stored
from rankloom_server.parse_retrieval import parse_recommend, parse_retrieve
from rankloom_server.pipeline import ExplainAnswer, RankAnswer, RankPipeline
from rankloom_server.ranking_wire import (
    answer_to_wire,
    explanation_to_wire,
    recommendation_to_wire,
    retrieval_to_wire,
    stored_to_wire,
)
from rankloom_server.retrieval_pipeline import RetrievalPipeline, RetrieveAnswer
from rankloom_server.stored_explanations import StoredExplanations

SERVICE_NAME = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].full_name


class RankingService(ranking_pb2_grpc.RankingServiceServicer):
    """Parses, calls a pipeline, builds messages; errors leave as exceptions."""

    def __init__(
        self,
        pipeline: RankPipeline,
        retrieving: RetrievalPipeline,
        stored: StoredExplanations,
        admission: Admission,
        default_deadline_s: float,
    ) -> None:
        self._pipeline, self._retrieving, self._stored = pipeline, retrieving, stored
        self._admission = admission
        self._default_deadline_s = default_deadline_s

    async def Rank(
        self, request: ranking_pb2.RankRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ranking_pb2.RankResponse:
        query = parse_rank(request, _host_of(context.peer()))
        logs.note(request_id=query.request_id, num_candidates=len(query.user.candidates))
        deadline = time.monotonic() + self._budget_s(context)
        # The loop's clock is the monotonic one. An explained item is as much work as a call.
        with self._admission.admit_more(query.explain_top_k):
            async with asyncio.timeout_at(deadline):
                answer = await self._pipeline.rank(query, deadline)
        _note(answer)
        return answer_to_wire(query.request_id, answer)

    async def Retrieve(
        self, request: ranking_pb2.RetrieveRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ranking_pb2.RetrieveResponse:
        query = parse_retrieve(request)
        logs.note(request_id=query.request_id, k=query.k)
        deadline = time.monotonic() + self._budget_s(context)
        async with asyncio.timeout_at(deadline):
            answer = await self._retrieving.retrieve(query, deadline)
        _note_retrieval(answer)
        return retrieval_to_wire(query.request_id, answer)

    async def Recommend(
        self, request: ranking_pb2.RecommendRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ranking_pb2.RecommendResponse:
        query = parse_recommend(request, _host_of(context.peer()))
        logs.note(request_id=query.ranking.request_id, k=query.k, retrieve_k=query.retrieve_k)
        deadline = time.monotonic() + self._budget_s(context)
        with self._admission.admit_more(query.ranking.explain_top_k):
            async with asyncio.timeout_at(deadline):
                answer = await self._retrieving.recommend(query, deadline)
        _note(answer.ranked)
        logs.note(**_retrieval_facts(answer.retrieval), search_ms=_ms(answer.timing.search_s))
        return recommendation_to_wire(query.ranking.request_id, answer)

    async def Explain(
        self, request: ranking_pb2.ExplainRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[ranking_pb2.ExplainResponse, None]:
        """Text about one candidate, then its verdict, within the deadline."""
        if asks_for_stored(request):
            for part in await self._explain_stored(request, context):
                yield part
            return
        query = parse_explain(request, _host_of(context.peer()))
        logs.note(request_id=query.ranking.request_id)
        deadline = time.monotonic() + self._budget_s(context)
        async with (
            self._pipeline.explain(query, deadline) as answer,
            aclosing(answer.texts()) as texts,
        ):
            async for text in texts:
                chunk = ranking_pb2.ExplanationChunk(text=text)
                yield ranking_pb2.ExplainResponse(chunk=chunk)
            _note_explanation(answer)
            yield explanation_to_wire(query.ranking.request_id, answer)

    async def _explain_stored(
        self, request: ranking_pb2.ExplainRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Sequence[ranking_pb2.ExplainResponse]:
        query = parse_stored(request)
        logs.note(request_id=query.request_id, explanation_source="STORED")
        deadline = time.monotonic() + self._budget_s(context)
        async with asyncio.timeout_at(deadline):
            answer = await self._stored.explain(query, deadline)
        logs.note(revision=answer.revision)
        return stored_to_wire(query.request_id, answer)

    def _budget_s(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        left_s: float | None = context.time_remaining()  # None where the call brings no deadline
        return self._default_deadline_s if left_s is None else left_s


def _host_of(peer: str) -> str:
    """A peer's address without its port, which is new with every connection."""
    return peer.rpartition(":")[0]


def _note(answer: RankAnswer) -> None:
    """Facts of the answer for the call's log line."""
    ranking, timing = answer.ranking, answer.ranking.timing
    logs.note(
        revision=answer.revision,
        fallback_level=ranking.fallback.level.name,
        fallback_reason=ranking.fallback.reason.name if ranking.fallback.reason else None,
        **_routing_facts(ranking.routing),
        num_explained=len(ranking.explanations) or None,
        features_ms=_ms(timing.features_s),
        prompt_ms=_ms(timing.prompt_s),
        queue_ms=_ms(timing.queue_s),
        model_ms=_ms(timing.model_s),
    )


def _note_explanation(answer: ExplainAnswer) -> None:
    explanation = answer.explanation
    logs.note(
        revision=answer.revision,
        prompt_tokens=explanation.num_prompt_tokens,
        generated_tokens=explanation.num_tokens,
        stop_reason=explanation.stop.name,
        num_evidence=len(explanation.evidence),
        **_routing_facts(explanation.routing),
    )


def _note_retrieval(answer: RetrieveAnswer) -> None:
    found, timing = answer.retrieval, answer.timing
    logs.note(
        revision=answer.revision,
        fallback_reason=found.reason.name if found.reason else None,
        cold_start=found.cold_start,
        features_ms=_ms(timing.features_s),
        search_ms=_ms(timing.search_s),
        **_retrieval_facts(found),
    )


def _retrieval_facts(found: Retrieval) -> dict[str, object]:
    return {"num_retrieved": len(found.item_ids), "retrieval_order": found.order.name}


def _routing_facts(routing: Routing) -> dict[str, object]:
    route = routing.route.name if routing.route else None
    return {
        "route": route,
        "cold_start": routing.cold_start,
        "history_events": routing.history_events,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
