"""RankingService: between the wire and the pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from rankloom_adapters.router import Route
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc
from rankloom_ranker.answers import (
    EventEvidence,
    ItemExplanation,
    RankedItem,
    Routing,
    Timing,
    Verdict,
)
from rankloom_ranker.fallback import FallbackLevel, FallbackReason
from rankloom_server import logs
from rankloom_server.admission import Admission
from rankloom_server.parse import parse_explain, parse_rank
from rankloom_server.pipeline import ExplainAnswer, RankAnswer, RankPipeline

SERVICE_NAME = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].full_name

_LEVELS = {
    fallback_level: ranking_pb2.FallbackLevel.Value(f"FALLBACK_LEVEL_{fallback_level.name}")
    for fallback_level in FallbackLevel
}
_REASONS: dict[FallbackReason | None, ranking_pb2.FallbackReason.ValueType] = {
    None: ranking_pb2.FALLBACK_REASON_UNSPECIFIED,
    **{
        each: ranking_pb2.FallbackReason.Value(f"FALLBACK_REASON_{each.name}")
        for each in FallbackReason
    },
}
_ROUTES: dict[Route | None, ranking_pb2.Route.ValueType] = {
    None: ranking_pb2.ROUTE_UNSPECIFIED,
    **{route: ranking_pb2.Route.Value(f"ROUTE_{route.name}") for route in Route},
}


class RankingService(ranking_pb2_grpc.RankingServiceServicer):
    """Parses, calls the pipeline, builds messages; errors leave as exceptions."""

    def __init__(
        self, pipeline: RankPipeline, admission: Admission, default_deadline_s: float
    ) -> None:
        self._pipeline, self._admission = pipeline, admission
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

    async def Explain(
        self, request: ranking_pb2.ExplainRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[ranking_pb2.ExplainResponse, None]:
        """Text about one candidate, then its verdict, within the deadline."""
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

    def _budget_s(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        left_s: float | None = context.time_remaining()  # None where the call brings no deadline
        return self._default_deadline_s if left_s is None else left_s


def _host_of(peer: str) -> str:
    """A peer's address without its port, which is new with every connection."""
    return peer.rpartition(":")[0]


def answer_to_wire(request_id: str, answer: RankAnswer) -> ranking_pb2.RankResponse:
    """The answer's message."""
    ranking = answer.ranking
    return ranking_pb2.RankResponse(
        request_id=request_id,
        revision=_revision_to_wire(answer),
        routing=_routing_to_wire(ranking.routing),
        fallback_level=_LEVELS[ranking.fallback.level],
        fallback_reason=_REASONS[ranking.fallback.reason],
        items=[_item_to_wire(rank, item) for rank, item in enumerate(ranking.items, 1)],
        timing=_timing_to_wire(ranking.timing),
        explanations=map(_item_explanation_to_wire, ranking.explanations),
    )


def explanation_to_wire(request_id: str, answer: ExplainAnswer) -> ranking_pb2.ExplainResponse:
    """The final message."""
    explanation = answer.explanation
    final = ranking_pb2.Explanation(
        request_id=request_id,
        revision=_revision_to_wire(answer),
        verdict=_verdict_to_wire(explanation.verdict),
        score=explanation.verdict.score,
        probability=explanation.verdict.probability,
        routing=_routing_to_wire(explanation.routing),
        prompt_tokens=explanation.num_prompt_tokens,
        generated_tokens=explanation.num_tokens,
        stop_reason=ranking_pb2.StopReason.Value(f"STOP_REASON_{explanation.stop.name}"),
        evidence=map(_evidence_to_wire, explanation.evidence),
    )
    return ranking_pb2.ExplainResponse(final=final)


def _item_explanation_to_wire(explanation: ItemExplanation) -> ranking_pb2.ItemExplanation:
    return ranking_pb2.ItemExplanation(
        item_id=explanation.item_id,
        verdict=_verdict_to_wire(explanation.verdict),
        text=explanation.text,
        generated_tokens=explanation.num_tokens,
        stop_reason=ranking_pb2.StopReason.Value(f"STOP_REASON_{explanation.stop.name}"),
        evidence=map(_evidence_to_wire, explanation.evidence),
    )


def _verdict_to_wire(verdict: Verdict) -> ranking_pb2.Verdict.ValueType:
    return ranking_pb2.VERDICT_LIKED if verdict.liked else ranking_pb2.VERDICT_DISLIKED


def _evidence_to_wire(evidence: EventEvidence) -> ranking_pb2.Evidence:
    return ranking_pb2.Evidence(
        item_id=evidence.item_id, liked=evidence.liked, influence=evidence.influence
    )


def _revision_to_wire(answer: RankAnswer | ExplainAnswer) -> ranking_pb2.Revision:
    return ranking_pb2.Revision(number=answer.revision, bundle_digest=answer.bundle_digest)


def _routing_to_wire(routing: Routing) -> ranking_pb2.Routing:
    return ranking_pb2.Routing(
        route=_ROUTES[routing.route],
        weights=[
            ranking_pb2.ExpertWeight(expert=each.expert, digest=each.digest, weight=each.weight)
            for each in routing.weights
        ],
        entropy=routing.entropy,
        cold_start=routing.cold_start,
        history_events=routing.history_events,
    )


def _item_to_wire(rank: int, item: RankedItem) -> ranking_pb2.RankedItem:
    return ranking_pb2.RankedItem(
        item_id=item.item_id,
        rank=rank,
        score=item.score,
        probability=item.probability,
        scored=item.scored,
    )


def _timing_to_wire(timing: Timing) -> ranking_pb2.Timing:
    return ranking_pb2.Timing(
        queue=_duration(timing.queue_s),
        features=_duration(timing.features_s),
        prompt=_duration(timing.prompt_s),
        model=_duration(timing.model_s),
        total=_duration(timing.total_s),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


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


def _routing_facts(routing: Routing) -> dict[str, object]:
    route = routing.route.name if routing.route else None
    return {
        "route": route,
        "cold_start": routing.cold_start,
        "history_events": routing.history_events,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
