"""Writes answers as messages: the reverse of the SDK's response parsers."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rankloom._events import ModelInfo
from rankloom._features import TabularFeatures, UserFeatures
from rankloom._request_parts import build_event
from rankloom._results import (
    Evidence,
    Explanation,
    ItemExplanation,
    Ranking,
    Revision,
    Routing,
    StoredRationale,
    Timing,
)
from rankloom._retrievals import Recommendation, Retrieval
from rankloom._rollouts import Judgement, RevisionList, Rollout
from rankloom_proto.v1 import features_pb2, ranking_pb2, rollout_pb2

_NEWER: Final = 1000  # the number of UNKNOWN: a value that only a newer server knows


def ranking_to_wire(ranking: Ranking) -> ranking_pb2.RankResponse:
    """Return the message that `parse_response` reads as this ranking."""
    reason = ranking.fallback_reason
    return ranking_pb2.RankResponse(
        request_id=ranking.request_id,
        revision=_revision(ranking.revision),
        routing=_routing(ranking.routing),
        fallback_level=_number(ranking_pb2.FallbackLevel, "FALLBACK_LEVEL", ranking.fallback_level),
        fallback_reason=_number(ranking_pb2.FallbackReason, "FALLBACK_REASON", reason),
        items=[
            ranking_pb2.RankedItem(
                item_id=each.item_id,
                rank=each.rank,
                score=each.score,
                probability=each.probability,
                scored=each.scored,
            )
            for each in ranking.items
        ],
        timing=_timing(ranking.timing),
        explanations=map(_item_explanation, ranking.explanations),
    )


def retrieval_to_wire(retrieval: Retrieval) -> ranking_pb2.RetrieveResponse:
    """Return the message that the SDK reads as this retrieval."""
    reason = retrieval.fallback_reason
    return ranking_pb2.RetrieveResponse(
        request_id=retrieval.request_id,
        revision=_revision(retrieval.revision),
        items=[
            ranking_pb2.RetrievedItem(item_id=each.item_id, rank=each.rank, score=each.score)
            for each in retrieval.items
        ],
        order=_number(ranking_pb2.RetrievalOrder, "RETRIEVAL_ORDER", retrieval.order),
        fallback_reason=_number(ranking_pb2.FallbackReason, "FALLBACK_REASON", reason),
        cold_start=retrieval.cold_start,
        history_version=retrieval.history_version,
        timing=_timing(retrieval.timing),
    )


def recommendation_to_wire(answer: Recommendation) -> ranking_pb2.RecommendResponse:
    """Return the message that the SDK reads as this recommendation."""
    return ranking_pb2.RecommendResponse(
        ranking=ranking_to_wire(answer.ranking),
        num_retrieved=answer.num_retrieved,
        order=_number(ranking_pb2.RetrievalOrder, "RETRIEVAL_ORDER", answer.order),
        history_version=answer.history_version,
    )


def explanation_to_wire(explanation: Explanation) -> ranking_pb2.ExplainResponse:
    """Return the final part of an explanation; its text goes before it, in pieces."""
    final = ranking_pb2.Explanation(
        request_id=explanation.request_id,
        revision=_revision(explanation.revision),
        verdict=_number(ranking_pb2.Verdict, "VERDICT", explanation.verdict),
        score=explanation.score,
        probability=explanation.probability,
        routing=_routing(explanation.routing),
        prompt_tokens=explanation.prompt_tokens,
        generated_tokens=explanation.generated_tokens,
        stop_reason=_number(ranking_pb2.StopReason, "STOP_REASON", explanation.stop_reason),
        evidence=map(_evidence, explanation.evidence),
        source=_number(ranking_pb2.ExplanationSource, "EXPLANATION_SOURCE", explanation.source),
        stored=None if explanation.stored is None else _stored(explanation.stored),
    )
    return ranking_pb2.ExplainResponse(final=final)


def _stored(stored: StoredRationale) -> ranking_pb2.StoredRationale:
    written = Timestamp()
    written.FromDatetime(stored.written)
    return ranking_pb2.StoredRationale(
        written=written, generator=stored.generator, digest=stored.digest, rating=stored.rating
    )


def _item_explanation(explanation: ItemExplanation) -> ranking_pb2.ItemExplanation:
    return ranking_pb2.ItemExplanation(
        item_id=explanation.item_id,
        verdict=_number(ranking_pb2.Verdict, "VERDICT", explanation.verdict),
        text=explanation.text,
        generated_tokens=explanation.generated_tokens,
        stop_reason=_number(ranking_pb2.StopReason, "STOP_REASON", explanation.stop_reason),
        evidence=map(_evidence, explanation.evidence),
    )


def _evidence(evidence: Evidence) -> ranking_pb2.Evidence:
    return ranking_pb2.Evidence(
        item_id=evidence.item_id, liked=evidence.liked, influence=evidence.influence
    )


def features_to_wire(features: UserFeatures) -> features_pb2.UserFeatures:
    """Return the message that `parse_features` reads as these features."""
    return features_pb2.UserFeatures(
        vector=_floats(features.vector),
        feature_version=features.feature_version,
        cold_start=features.cold_start,
        events=[build_event(event, "events") for event in features.events],
        history_version=features.history_version,
        history_age=None if features.history_age_s is None else _duration(features.history_age_s),
        tabular=None if features.tabular is None else _tabular(features.tabular),
        predicted_ratings=_floats(features.predicted_ratings or ()),
    )


def model_info_to_wire(info: ModelInfo) -> features_pb2.GetModelInfoResponse:
    """Return the message that `parse_model_info` reads as this model."""
    return features_pb2.GetModelInfoResponse(
        kind=info.kind,
        dim=info.dim,
        feature_version=info.feature_version,
        num_items=info.num_items,
        columns=info.columns,
        schema_digest=info.schema_digest,
        like_above=info.like_above,
    )


def rollout_to_wire(rollout: Rollout) -> rollout_pb2.Rollout:
    """Return the message that `parse_rollout` reads as this rollout."""
    return rollout_pb2.Rollout(
        revision=rollout.revision,
        bundle_digest=rollout.bundle_digest,
        state=_number(rollout_pb2.RolloutState, "ROLLOUT_STATE", rollout.state),
        percent=rollout.percent,
        reason=rollout.reason,
        back_to=rollout.back_to,
        leases=rollout.leases,
        loaded=rollout.loaded,
        judgement=None if rollout.judgement is None else _judgement(rollout.judgement),
    )


def revisions_to_wire(revisions: RevisionList) -> rollout_pb2.Revisions:
    """Return the message that `parse_revisions` reads as this list."""
    time = Timestamp()
    time.FromDatetime(revisions.time)
    return rollout_pb2.Revisions(
        rollouts=map(rollout_to_wire, revisions.rollouts),
        active=revisions.active,
        expert_bytes=revisions.expert_bytes,
        resident_bytes=revisions.resident_bytes,
        time=time,
    )


def _number(wire_enum: Any, prefix: str, value: StrEnum | None) -> Any:  # noqa: ANN401
    if value is None:
        return 0
    return _NEWER if value.name == "UNKNOWN" else wire_enum.Value(f"{prefix}_{value.name}")


def _revision(revision: Revision) -> ranking_pb2.Revision:
    return ranking_pb2.Revision(number=revision.number, bundle_digest=revision.bundle_digest)


def _routing(routing: Routing) -> ranking_pb2.Routing:
    return ranking_pb2.Routing(
        route=_number(ranking_pb2.Route, "ROUTE", routing.route),
        weights=[
            ranking_pb2.ExpertWeight(expert=each.expert, digest=each.digest, weight=each.weight)
            for each in routing.weights
        ],
        entropy=routing.entropy,
        cold_start=routing.cold_start,
        history_events=routing.history_events,
    )


def _timing(timing: Timing) -> ranking_pb2.Timing:
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


def _tabular(tabular: TabularFeatures) -> features_pb2.TabularMatrix:
    rows = tabular.rows
    return features_pb2.TabularMatrix(
        rows=len(rows),
        columns=len(rows[0]) if rows else 0,
        values=_floats(value for row in rows for value in row),
        schema_digest=tabular.schema_digest,
    )


def _floats(values: Iterable[float]) -> bytes:
    floats = array("f", values)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()


def _judgement(judgement: Judgement) -> rollout_pb2.Judgement:
    return rollout_pb2.Judgement(
        outcome=_number(rollout_pb2.GateOutcome, "GATE_OUTCOME", judgement.outcome),
        reason=judgement.reason,
        gates=[
            rollout_pb2.Gate(
                name=each.name,
                group=each.group,
                value=each.value,
                bound=each.bound,
                samples=each.samples,
                outcome=_number(rollout_pb2.GateOutcome, "GATE_OUTCOME", each.outcome),
            )
            for each in judgement.gates
        ],
        num_trial=judgement.num_trial,
        num_baseline=judgement.num_baseline,
    )
