"""The wire message of an answer to values, shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration

from rankloom.results import (
    ExpertWeight,
    Generation,
    RankedItem,
    Ranking,
    Route,
    Rung,
    RungReason,
    Timing,
    Weave,
)
from rankloom_proto.v1 import ranking_pb2

_Enum = TypeVar("_Enum", bound=StrEnum)


def _names(
    wire_values: Iterable[tuple[str, int]], kind: type[_Enum], prefix: str
) -> dict[int, _Enum]:
    """Return wire number → member, for the values that both sides know."""
    pairs = ((number, name.removeprefix(prefix)) for name, number in wire_values)
    return {number: kind[name] for number, name in pairs if name in kind.__members__}


_ROUTES: Final = _names(ranking_pb2.Route.items(), Route, "ROUTE_")
_RUNGS: Final = _names(ranking_pb2.Rung.items(), Rung, "RUNG_")
_RUNG_REASONS: Final = _names(ranking_pb2.RungReason.items(), RungReason, "RUNG_REASON_")


def parse_response(response: ranking_pb2.RankResponse) -> Ranking:
    """Return the answer as values; what only a newer server knows becomes UNKNOWN."""
    generation = response.generation
    return Ranking(
        request_id=response.request_id,
        generation=Generation(generation.number, generation.bundle_digest),
        weave=_weave(response.weave),
        rung=_RUNGS.get(response.rung, Rung.UNKNOWN),
        rung_reason=_rung_reason(response.rung_reason),
        items=tuple(_ranked_item(item) for item in response.items),
        timing=_timing(response.timing),
    )


def _rung_reason(number: int) -> RungReason | None:
    if number == ranking_pb2.RUNG_REASON_UNSPECIFIED:
        return None
    return _RUNG_REASONS.get(number, RungReason.UNKNOWN)


def _weave(weave: ranking_pb2.Weave) -> Weave:
    return Weave(
        route=_ROUTES.get(weave.route, Route.UNKNOWN),
        weights=tuple(ExpertWeight(w.expert, w.digest, w.weight) for w in weave.weights),
        entropy=weave.entropy,
        cold=weave.cold,
        history_events=weave.history_events,
    )


def _ranked_item(item: ranking_pb2.RankedItem) -> RankedItem:
    return RankedItem(item.item_id, item.rank, item.score, item.probability, item.scored)


def _timing(timing: ranking_pb2.Timing) -> Timing:
    return Timing(
        queue_s=_seconds(timing.queue),
        features_s=_seconds(timing.features),
        prompt_s=_seconds(timing.prompt),
        model_s=_seconds(timing.model),
        total_s=_seconds(timing.total),
    )


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
