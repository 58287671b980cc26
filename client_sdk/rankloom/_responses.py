"""Reads the answers of RankingService; shared by the blocking and the asyncio client."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration

from rankloom._results import (
    Evidence,
    ExpertWeight,
    Explanation,
    ExplanationSource,
    FallbackLevel,
    FallbackReason,
    ItemExplanation,
    RankedItem,
    Ranking,
    Revision,
    Route,
    Routing,
    StopReason,
    StoredRationale,
    Timing,
    Verdict,
)
from rankloom.errors import ErrorDetails, ServerError
from rankloom_proto.v1 import ranking_pb2

_Enum = TypeVar("_Enum", bound=StrEnum)


def wire_names(
    wire_values: Iterable[tuple[str, int]], kind: type[_Enum], prefix: str
) -> dict[int, _Enum]:
    """Return wire number → member for the values of an enum that both sides know."""
    pairs = ((number, name.removeprefix(prefix)) for name, number in wire_values)
    return {number: kind[name] for number, name in pairs if name in kind.__members__}


_ROUTES: Final = wire_names(ranking_pb2.Route.items(), Route, "ROUTE_")
_LEVELS: Final = wire_names(ranking_pb2.FallbackLevel.items(), FallbackLevel, "FALLBACK_LEVEL_")
_FALLBACK_REASONS: Final = wire_names(
    ranking_pb2.FallbackReason.items(), FallbackReason, "FALLBACK_REASON_"
)
_VERDICTS: Final = wire_names(ranking_pb2.Verdict.items(), Verdict, "VERDICT_")
_STOP_REASONS: Final = wire_names(ranking_pb2.StopReason.items(), StopReason, "STOP_REASON_")
_SOURCES: Final = {
    ranking_pb2.EXPLANATION_SOURCE_UNSPECIFIED: ExplanationSource.LIVE,
    **wire_names(ranking_pb2.ExplanationSource.items(), ExplanationSource, "EXPLANATION_SOURCE_"),
}


def parse_response(response: ranking_pb2.RankResponse) -> Ranking:
    """Return the answer as values; what only a newer server knows becomes UNKNOWN."""
    return Ranking(
        request_id=response.request_id,
        revision=parse_revision(response.revision),
        routing=_routing(response.routing),
        fallback_level=_LEVELS.get(response.fallback_level, FallbackLevel.UNKNOWN),
        fallback_reason=parse_fallback_reason(response.fallback_reason),
        items=tuple(
            RankedItem(item.item_id, item.rank, item.score, item.probability, item.scored)
            for item in response.items
        ),
        timing=parse_timing(response.timing),
        explanations=tuple(map(_item_explanation, response.explanations)),
    )


class ExplanationParts:
    """Collects the parts of an explanation for the call `request_id`."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._texts: list[str] = []
        self._final: ranking_pb2.Explanation | None = None

    def add(self, response: ranking_pb2.ExplainResponse) -> str:
        """Keep a part and return its text; empty if the part has none."""
        if response.HasField("final"):
            self._final = response.final
        self._texts.append(response.chunk.text)
        return response.chunk.text

    def explanation(self) -> Explanation:
        """Return the whole, or raise ServerError if the final part never came."""
        if self._final is None:
            details = ErrorDetails(request_id=self.request_id)
            raise ServerError("the server ended the text without a verdict; try again", details)
        return _explanation(self._final, "".join(self._texts))


def _explanation(final: ranking_pb2.Explanation, text: str) -> Explanation:
    return Explanation(
        request_id=final.request_id,
        text=text,
        verdict=_VERDICTS.get(final.verdict, Verdict.UNKNOWN),
        score=final.score,
        probability=final.probability,
        revision=parse_revision(final.revision),
        routing=_routing(final.routing),
        prompt_tokens=final.prompt_tokens,
        generated_tokens=final.generated_tokens,
        stop_reason=_STOP_REASONS.get(final.stop_reason, StopReason.UNKNOWN),
        evidence=_evidence(final.evidence),
        source=_SOURCES.get(final.source, ExplanationSource.UNKNOWN),
        stored=_stored(final.stored) if final.HasField("stored") else None,
    )


def _stored(stored: ranking_pb2.StoredRationale) -> StoredRationale:
    written = stored.written.ToDatetime(UTC)
    return StoredRationale(written, stored.generator, stored.digest, stored.rating)


def _item_explanation(message: ranking_pb2.ItemExplanation) -> ItemExplanation:
    return ItemExplanation(
        item_id=message.item_id,
        verdict=_VERDICTS.get(message.verdict, Verdict.UNKNOWN),
        text=message.text,
        generated_tokens=message.generated_tokens,
        stop_reason=_STOP_REASONS.get(message.stop_reason, StopReason.UNKNOWN),
        evidence=_evidence(message.evidence),
    )


def _evidence(messages: Iterable[ranking_pb2.Evidence]) -> tuple[Evidence, ...]:
    return tuple(Evidence(each.item_id, each.liked, each.influence) for each in messages)


def parse_revision(revision: ranking_pb2.Revision) -> Revision:
    """Return the revision that answered."""
    return Revision(revision.number, revision.bundle_digest)


def parse_fallback_reason(number: int) -> FallbackReason | None:
    """Return the reason; None if there is none."""
    if number == ranking_pb2.FALLBACK_REASON_UNSPECIFIED:
        return None
    return _FALLBACK_REASONS.get(number, FallbackReason.UNKNOWN)


def _routing(routing: ranking_pb2.Routing) -> Routing:
    return Routing(
        route=_ROUTES.get(routing.route, Route.UNKNOWN),
        weights=tuple(ExpertWeight(w.expert, w.digest, w.weight) for w in routing.weights),
        entropy=routing.entropy,
        cold_start=routing.cold_start,
        history_events=routing.history_events,
    )


def parse_timing(timing: ranking_pb2.Timing) -> Timing:
    """Return the times in seconds."""
    return Timing(
        queue_s=_seconds(timing.queue),
        features_s=_seconds(timing.features),
        prompt_s=_seconds(timing.prompt),
        model_s=_seconds(timing.model),
        total_s=_seconds(timing.total),
        search_s=_seconds(timing.search),
    )


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
