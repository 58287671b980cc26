"""Answers of RankingService as wire messages."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rankloom_adapters.router import Route
from rankloom_proto.v1 import ranking_pb2
from rankloom_ranker.answers import (
    EventEvidence,
    ItemExplanation,
    RankedItem,
    RetrievalOrder,
    Routing,
    Timing,
    Verdict,
)
from rankloom_ranker.fallback import FallbackLevel, FallbackReason
from rankloom_server.pipeline import ExplainAnswer, RankAnswer
from rankloom_server.retrieval_pipeline import RecommendAnswer, RetrieveAnswer
from rankloom_server.stored_explanations import StoredAnswer

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
        source=ranking_pb2.EXPLANATION_SOURCE_LIVE,
    )
    return ranking_pb2.ExplainResponse(final=final)


def stored_to_wire(
    request_id: str, answer: StoredAnswer
) -> tuple[ranking_pb2.ExplainResponse, ranking_pb2.ExplainResponse]:
    """The whole text, and the final message."""
    rationale, written = answer.rationale, Timestamp()
    written.FromDatetime(rationale.written)
    final = ranking_pb2.Explanation(
        request_id=request_id,
        revision=_revision_to_wire(answer),
        source=ranking_pb2.EXPLANATION_SOURCE_STORED,
        stored=ranking_pb2.StoredRationale(
            written=written,
            generator=rationale.generator,
            digest=answer.rationales_digest,
            rating=rationale.rating,
        ),
    )
    return (
        ranking_pb2.ExplainResponse(chunk=ranking_pb2.ExplanationChunk(text=rationale.text)),
        ranking_pb2.ExplainResponse(final=final),
    )


def retrieval_to_wire(request_id: str, answer: RetrieveAnswer) -> ranking_pb2.RetrieveResponse:
    """The answer's message."""
    found = answer.retrieval
    message = ranking_pb2.RetrieveResponse(
        request_id=request_id,
        revision=_revision_to_wire(answer),
        order=_order_to_wire(found.order),
        fallback_reason=_REASONS[found.reason],
        cold_start=found.cold_start,
        history_version=found.history_version,
        timing=_timing_to_wire(answer.timing),
    )
    add = message.items.add  # half the time of messages that are then copied into this one
    for rank, (item_id, score) in enumerate(zip(found.item_ids, found.scores, strict=True), 1):
        add(item_id=item_id, rank=rank, score=score)
    return message


def recommendation_to_wire(
    request_id: str, answer: RecommendAnswer
) -> ranking_pb2.RecommendResponse:
    """The answer's message."""
    found = answer.retrieval
    return ranking_pb2.RecommendResponse(
        ranking=answer_to_wire(request_id, answer.ranked),
        num_retrieved=len(found.item_ids),
        order=_order_to_wire(found.order),
        history_version=found.history_version,
    )


def _order_to_wire(order: RetrievalOrder) -> ranking_pb2.RetrievalOrder.ValueType:
    return ranking_pb2.RetrievalOrder.Value(f"RETRIEVAL_ORDER_{order.name}")


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


def _revision_to_wire(
    answer: RankAnswer | ExplainAnswer | RetrieveAnswer | StoredAnswer,
) -> ranking_pb2.Revision:
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
        search=_duration(timing.search_s),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
