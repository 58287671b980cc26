"""How the server's messages become values."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from enum import StrEnum
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from client_sdk.clients import AnyClient
from client_sdk.recording_server import RecordingServer, answer
from rankloom import (
    ErrorReason,
    Evidence,
    ExpertWeight,
    FallbackLevel,
    FallbackReason,
    Fusion,
    ItemExplanation,
    RankedItem,
    Ranking,
    Revision,
    Route,
    Routing,
    StopReason,
    Timing,
    Verdict,
)
from rankloom._responses import parse_response
from rankloom_proto.v1 import ranking_pb2 as wire

WEIGHTS = [
    wire.ExpertWeight(expert="drama", digest="d1", weight=0.75),
    wire.ExpertWeight(expert="global", digest="d0", weight=0.25),
]
ANSWER: dict[str, Any] = {
    "revision": wire.Revision(number=7, bundle_digest="sha256:ab"),
    "routing": wire.Routing(
        route=wire.ROUTE_FUSED, weights=WEIGHTS, entropy=0.5, cold_start=True, history_events=12
    ),
    "fallback_level": wire.FALLBACK_LEVEL_TOP_EXPERT,
    "fallback_reason": wire.FALLBACK_REASON_ENGINE_FAILED,
    "timing": wire.Timing(
        queue=Duration(nanos=500_000),
        features=Duration(nanos=1_000_000),
        prompt=Duration(nanos=2_000_000),
        model=Duration(nanos=250_000_000),
        total=Duration(seconds=1, nanos=500_000_000),
    ),
}


async def test_the_whole_answer(client_class: AnyClient, server: RecordingServer) -> None:
    server.will(answer(**ANSWER))
    async with client_class(server.target) as client:
        ranking = await client.rank(["a", "b"], user="u", request_id="r")
    assert ranking == Ranking(
        request_id="r",
        revision=Revision(7, "sha256:ab"),
        routing=Routing(
            route=Route.FUSED,
            weights=(ExpertWeight("drama", "d1", 0.75), ExpertWeight("global", "d0", 0.25)),
            entropy=0.5,
            cold_start=True,
            history_events=12,
        ),
        fallback_level=FallbackLevel.TOP_EXPERT,
        fallback_reason=FallbackReason.ENGINE_FAILED,
        items=(RankedItem("b", 1, 2.0, 0.8, True), RankedItem("a", 2, 1.0, 1 / 1.5, True)),
        timing=Timing(0.0005, 0.001, 0.002, 0.25, 1.5),
    )
    assert ranking.is_fallback
    assert list(ranking.scores().items()) == [("b", 2.0), ("a", 1.0)]


def test_explanations_of_the_best_items() -> None:
    found = wire.ItemExplanation(
        item_id="b",
        verdict=wire.VERDICT_DISLIKED,
        text="No.",
        generated_tokens=2,
        stop_reason=wire.STOP_REASON_MAX_TOKENS,
        evidence=[wire.Evidence(item_id="x", influence=1.5)],
    )
    [explanation] = parse_response(wire.RankResponse(explanations=[found])).explanations
    assert explanation == ItemExplanation(
        "b", Verdict.DISLIKED, "No.", 2, StopReason.MAX_TOKENS, (Evidence("x", False, 1.5),)
    )


def test_unscored_items_have_no_score() -> None:
    items = [wire.RankedItem(item_id="a", rank=1, score=9.0), wire.RankedItem(item_id="b", rank=2)]
    items[1].scored = True
    assert parse_response(wire.RankResponse(items=items)).scores() == {"b": 0.0}


def test_every_level_but_the_exact_mixture_is_a_fallback() -> None:
    is_fallback = {
        fallback_level
        for fallback_level in wire.FallbackLevel.values()
        if parse_response(wire.RankResponse(fallback_level=fallback_level)).is_fallback
    }
    assert is_fallback == set(wire.FallbackLevel.values()) - {wire.FALLBACK_LEVEL_EXACT_MIXTURE}


def test_values_of_a_newer_server_are_unknown() -> None:
    # As bytes, since a newer server sends numbers that our enum lacks.
    payload = wire.RankResponse(
        fallback_level=wire.FALLBACK_LEVEL_EXACT_MIXTURE
    ).SerializeToString()
    newer = payload.replace(b"\x20\x01", b"\x20\x63\x28\x62")
    routing = wire.Routing.FromString(b"\x08\x63")
    ranking = parse_response(wire.RankResponse.FromString(newer))
    assert (ranking.fallback_level, ranking.fallback_reason) == (
        FallbackLevel.UNKNOWN,
        FallbackReason.UNKNOWN,
    )
    assert ranking.is_fallback
    assert parse_response(wire.RankResponse(routing=routing)).routing.route is Route.UNKNOWN


def test_an_empty_answer_is_still_a_value() -> None:
    ranking = parse_response(wire.RankResponse())
    assert ranking.items == ()
    assert ranking.fallback_reason is None
    assert ranking.routing.route is Route.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "wire_enum", "prefix"),
    [
        (Fusion, wire.Fusion, "FUSION_"),
        (Route, wire.Route, "ROUTE_"),
        (FallbackLevel, wire.FallbackLevel, "FALLBACK_LEVEL_"),
        (FallbackReason, wire.FallbackReason, "FALLBACK_REASON_"),
        (ErrorReason, wire.ErrorReason, "ERROR_REASON_"),
        (Verdict, wire.Verdict, "VERDICT_"),
        (StopReason, wire.StopReason, "STOP_REASON_"),
    ],
)
def test_every_wire_value_has_its_name(
    kind: type[StrEnum], wire_enum: EnumTypeWrapper, prefix: str
) -> None:
    names = {name.removeprefix(prefix) for name, _ in wire_enum.items()}
    assert names - {"UNSPECIFIED"} == set(kind.__members__) - {"UNKNOWN"}


def test_results_are_values() -> None:
    ranking = parse_response(wire.RankResponse(request_id="r", **ANSWER))
    assert pickle.loads(pickle.dumps(ranking)) == ranking
    assert hash(ranking) == hash(pickle.loads(pickle.dumps(ranking)))
    with pytest.raises(FrozenInstanceError):
        ranking.request_id = "other"  # type: ignore[misc]
