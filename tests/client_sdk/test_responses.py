"""What the caller gets for what the server sends."""

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
    ExpertWeight,
    Generation,
    RankedItem,
    Ranking,
    Route,
    Rung,
    RungReason,
    Semantics,
    StopReason,
    Timing,
    Verdict,
    Weave,
)
from rankloom.responses import parse_response
from rankloom_proto.v1 import ranking_pb2 as wire

WEIGHTS = [
    wire.ExpertWeight(expert="drama", digest="d1", weight=0.75),
    wire.ExpertWeight(expert="global", digest="d0", weight=0.25),
]
ANSWER: dict[str, Any] = {
    "generation": wire.Generation(number=7, bundle_digest="sha256:ab"),
    "weave": wire.Weave(
        route=wire.ROUTE_FUSED, weights=WEIGHTS, entropy=0.5, cold=True, history_events=12
    ),
    "rung": wire.RUNG_TOP_EXPERT,
    "rung_reason": wire.RUNG_REASON_ENGINE_FAILED,
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
        generation=Generation(7, "sha256:ab"),
        weave=Weave(
            route=Route.FUSED,
            weights=(ExpertWeight("drama", "d1", 0.75), ExpertWeight("global", "d0", 0.25)),
            entropy=0.5,
            cold=True,
            history_events=12,
        ),
        rung=Rung.TOP_EXPERT,
        rung_reason=RungReason.ENGINE_FAILED,
        items=(RankedItem("b", 1, 2.0, 0.8, True), RankedItem("a", 2, 1.0, 1 / 1.5, True)),
        timing=Timing(0.0005, 0.001, 0.002, 0.25, 1.5),
    )
    assert ranking.degraded
    assert list(ranking.scores().items()) == [("b", 2.0), ("a", 1.0)]


def test_unscored_items_have_no_score() -> None:
    items = [wire.RankedItem(item_id="a", rank=1, score=9.0), wire.RankedItem(item_id="b", rank=2)]
    items[1].scored = True
    assert parse_response(wire.RankResponse(items=items)).scores() == {"b": 0.0}


def test_only_the_exact_mix_is_not_degraded() -> None:
    degraded = {
        rung for rung in wire.Rung.values() if parse_response(wire.RankResponse(rung=rung)).degraded
    }
    assert degraded == set(wire.Rung.values()) - {wire.RUNG_EXACT_MIX}


def test_values_of_a_newer_server_are_unknown() -> None:
    # As bytes: only so does a message hold numbers that its enum lacks.
    payload = wire.RankResponse(rung=wire.RUNG_EXACT_MIX).SerializeToString()
    newer = payload.replace(b"\x20\x01", b"\x20\x63\x28\x62")
    weave = wire.Weave.FromString(b"\x08\x63")
    ranking = parse_response(wire.RankResponse.FromString(newer))
    assert (ranking.rung, ranking.rung_reason) == (Rung.UNKNOWN, RungReason.UNKNOWN)
    assert ranking.degraded
    assert parse_response(wire.RankResponse(weave=weave)).weave.route is Route.UNKNOWN


def test_an_empty_answer_is_still_a_value() -> None:
    ranking = parse_response(wire.RankResponse())
    assert ranking.items == ()
    assert ranking.rung_reason is None
    assert ranking.weave.route is Route.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "wire_enum", "prefix"),
    [
        (Semantics, wire.Semantics, "SEMANTICS_"),
        (Route, wire.Route, "ROUTE_"),
        (Rung, wire.Rung, "RUNG_"),
        (RungReason, wire.RungReason, "RUNG_REASON_"),
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
