"""What the server receives for given arguments, and what is refused before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from client_sdk.clients import AnyClient
from client_sdk.recording_server import RecordingServer
from rankloom import Event, ExplainOptions, Fusion, InvalidRequestError, Item, RankOptions
from rankloom._policy import MAX_MESSAGE_BYTES
from rankloom._requests import build_explain_request, build_request
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import Candidate, History, ItemText
from rankloom_proto.v1.features_pb2 import Event as WireEvent
from rankloom_proto.v1.ranking_pb2 import ExplainRequest, RankRequest

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_S = 1_714_564_800


def build(**changes: object) -> RankRequest:
    """Build a request that is valid except for the changes."""
    defaults = {"items": ["a"], "user": "u", "history": None, "options": RankOptions()}
    return build_request(**{**defaults, "request_id": "r", **changes})  # type: ignore[arg-type]


async def test_every_argument_arrives(client_class: AnyClient, server: RecordingServer) -> None:
    film = Item("b", title="Été", year=1999, attributes=("Drama", "War"), description="long")
    options = RankOptions(
        top_k=1,
        allow_fallback=False,
        allow_partial=True,
        fusion=Fusion.PEFT_LINEAR,
        revision=2**64 - 1,
        explain_top_k=3,
        explain=ExplainOptions(max_tokens=32, grounded=True),
        prefilter=50,
    )
    history = [Event("x", liked=True, time=NOON), Event("y", liked=False)]
    async with client_class(server.target) as client:
        await client.rank(["a", film], history=history, options=options, request_id="r-1")
    text = ItemText(title="Été", year=1999, attributes=["Drama", "War"], description="long")
    events = [WireEvent(item_id="x", liked=True), WireEvent(item_id="y", liked=False)]
    events[0].time.seconds = NOON_S
    assert server.received[0].request == RankRequest(
        request_id="r-1",
        history=History(events=events),
        candidates=[Candidate(item_id="a"), Candidate(item_id="b", text=text)],
        options=ranking_pb2.RankOptions(
            top_k=1,
            allow_fallback=False,
            allow_partial=True,
            fusion=ranking_pb2.FUSION_PEFT_LINEAR,
            revision=2**64 - 1,
            explain_top_k=3,
            explain=ranking_pb2.ExplainOptions(max_tokens=32, grounded=True),
            prefilter=50,
        ),
    )


async def test_defaults_leave_the_choice_to_the_server(
    client_class: AnyClient, server: RecordingServer
) -> None:
    async with client_class(server.target) as client:
        ranking = await client.rank(["a"], user="u")
    request = server.received[0].request
    assert request.user_id == "u"
    assert not request.options.HasField("top_k")
    assert not request.options.HasField("revision")
    assert not request.options.HasField("prefilter")
    assert request.options.allow_fallback
    assert not request.options.allow_partial
    assert request.options.fusion == ranking_pb2.FUSION_UNSPECIFIED
    assert len(request.request_id) == 32
    assert ranking.request_id == request.request_id


def test_request_ids_differ() -> None:
    assert len({build(request_id=None).request_id for _ in range(100)}) == 100


def test_a_new_user_is_an_empty_history() -> None:
    assert build(user=None, history=[]).WhichOneof("subject") == "history"


def test_times_of_all_zones_are_one_instant() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=9)))
    request = build(user=None, history=[Event("x", liked=True, time=there)])
    assert request.history.events[0].time.seconds == NOON_S


@pytest.mark.parametrize("fusion", list(Fusion))
def test_every_fusion_has_its_wire_value(fusion: Fusion) -> None:
    wire = build(options=RankOptions(fusion=fusion)).options.fusion
    assert ranking_pb2.Fusion.Name(wire) == f"FUSION_{fusion.name}"


@pytest.mark.parametrize("num_items", [0, 1, 501])
def test_limits_are_left_to_the_server(num_items: int) -> None:
    assert len(build(items=["a"] * num_items).candidates) == num_items
    assert build(user="").user_id == ""


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("both", "user", {"history": []}),
    ("neither", "user", {"user": None}),
    ("user-number", "user", {"user": 42}),
    ("user-surrogate", "user", {"user": "\ud800"}),
    ("request-id", "request_id", {"request_id": 7}),
    ("bare-string", "items", {"items": "abc"}),
    ("bytes", "items", {"items": b"abc"}),
    ("no-list", "items", {"items": 5}),
    ("item-number", "items[1]", {"items": ["a", 2]}),
    ("item-none", "items[0]", {"items": [None]}),
    ("item-surrogate", "items[0]", {"items": ["\udcff"]}),
    ("item-id", "items[0].item_id", {"items": [Item(3)]}),  # type: ignore[arg-type]
    ("title", "items[0].title", {"items": [Item("a", title=None)]}),  # type: ignore[arg-type]
    ("year", "items[0].year", {"items": [Item("a", year="1999")]}),  # type: ignore[arg-type]
    ("year-range", "items[0].year", {"items": [Item("a", year=2**31)]}),
    ("year-bool", "items[0].year", {"items": [Item("a", year=True)]}),
    (
        "attributes",
        "items[0].attributes",
        {"items": [Item("a", attributes="Drama")]},  # type: ignore[arg-type]
    ),
    (
        "attribute",
        "items[0].attributes[1]",
        {"items": [Item("a", attributes=("x", 1))]},  # type: ignore[arg-type]
    ),
    ("history-string", "history", {"user": None, "history": "abc"}),
    ("event-id-only", "history[0]", {"user": None, "history": ["a"]}),
    (
        "liked",
        "history[0].liked",
        {"user": None, "history": [Event("a", liked=1)]},  # type: ignore[arg-type]
    ),
    (
        "time-naive",
        "history[0].time",
        {"user": None, "history": [Event("a", liked=True, time=datetime(2024, 1, 1))]},
    ),
    (
        "time-number",
        "history[0].time",
        {"user": None, "history": [Event("a", liked=True, time=5)]},  # type: ignore[arg-type]
    ),
    ("options", "options", {"options": {"top_k": 1}}),
    ("top-k", "options.top_k", {"options": RankOptions(top_k=-1)}),
    ("top-k-float", "options.top_k", {"options": RankOptions(top_k=1.0)}),  # type: ignore[arg-type]
    ("revision", "options.revision", {"options": RankOptions(revision=2**64)}),
    ("explain-top-k", "options.explain_top_k", {"options": RankOptions(explain_top_k=-1)}),
    (
        "explain-seed",
        "options.explain.seed",
        {"options": RankOptions(explain=ExplainOptions(seed=-1))},
    ),
    (
        "explain",
        "options.explain",
        {"options": RankOptions(explain=RankOptions())},  # type: ignore[arg-type]
    ),
    (
        "allow-fallback",
        "options.allow_fallback",
        {"options": RankOptions(allow_fallback=None)},  # type: ignore[arg-type]
    ),
    (
        "fusion",
        "options.fusion",
        {"options": RankOptions(fusion="exact")},  # type: ignore[arg-type]
    ),
    ("too-large", "items", {"items": [Item("a", description="x" * MAX_MESSAGE_BYTES)]}),
]


@pytest.mark.parametrize(
    ("field", "arguments"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_the_wire_cannot_express_is_refused(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(**arguments)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert str(caught.value).startswith(f"{field}: ")
    assert caught.value.status == ""


def build_explain(**changes: object) -> ExplainRequest:
    """Build a request that is valid except for the changes."""
    defaults = {"item": "a", "user": "u", "history": None, "options": ExplainOptions()}
    given = {**defaults, "source": "live", "request_id": "r", **changes}
    return build_explain_request(**given)  # type: ignore[arg-type]


def test_every_argument_of_an_explanation_is_sent() -> None:
    options = ExplainOptions(
        max_tokens=9,
        temperature=0.5,
        seed=2**64 - 1,
        fusion=Fusion.TOP1,
        revision=7,
        max_evidence=0,
        grounded=False,
    )
    film = Item("b", title="Été", year=1999)
    history = [Event("x", liked=True)]
    request = build_explain(item=film, user=None, history=history, options=options, source="stored")
    assert request == ExplainRequest(
        request_id="r",
        history=History(events=[WireEvent(item_id="x", liked=True)]),
        candidate=Candidate(item_id="b", text=ItemText(title="Été", year=1999)),
        options=ranking_pb2.ExplainOptions(
            max_tokens=9,
            temperature=0.5,
            seed=2**64 - 1,
            fusion=ranking_pb2.FUSION_TOP1,
            revision=7,
            max_evidence=0,
            grounded=False,
        ),
        source=ranking_pb2.EXPLANATION_SOURCE_STORED,
    )


def test_an_explanations_defaults_leave_the_choice_to_the_server() -> None:
    request = build_explain(request_id=None)
    assert request.user_id == "u"
    assert request.candidate == Candidate(item_id="a")
    assert request.options == ranking_pb2.ExplainOptions()
    assert request.source == ranking_pb2.EXPLANATION_SOURCE_LIVE
    assert len(request.request_id) == 32


def test_limits_of_an_explanation_are_left_to_the_server() -> None:
    options = build_explain(options=ExplainOptions(max_tokens=2**32 - 1, temperature=-1)).options
    assert (options.max_tokens, options.temperature) == (2**32 - 1, -1.0)


EXPLAIN_REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("both", "user", {"history": []}),
    ("neither", "user", {"user": None}),
    ("request-id", "request_id", {"request_id": 7}),
    ("item-list", "item", {"item": ["a"]}),
    ("item-surrogate", "item", {"item": "\udcff"}),
    ("year", "item.year", {"item": Item("a", year="1999")}),  # type: ignore[arg-type]
    ("event", "history[0]", {"user": None, "history": ["a"]}),
    ("options", "options", {"options": RankOptions()}),
    ("source", "source", {"source": "fresh"}),
    ("max-tokens", "options.max_tokens", {"options": ExplainOptions(max_tokens=-1)}),
    (
        "temperature-word",
        "options.temperature",
        {"options": ExplainOptions(temperature="1")},  # type: ignore[arg-type]
    ),
    ("temperature-bool", "options.temperature", {"options": ExplainOptions(temperature=True)}),
    ("temperature-huge", "options.temperature", {"options": ExplainOptions(temperature=10**400)}),
    ("seed", "options.seed", {"options": ExplainOptions(seed=2**64)}),
    ("evidence", "options.max_evidence", {"options": ExplainOptions(max_evidence=-1)}),
    (
        "grounded",
        "options.grounded",
        {"options": ExplainOptions(grounded="yes")},  # type: ignore[arg-type]
    ),
    ("revision", "options.revision", {"options": ExplainOptions(revision=-1)}),
    ("too-large", "item", {"item": Item("a", description="x" * MAX_MESSAGE_BYTES)}),
]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [case[1:] for case in EXPLAIN_REFUSED],
    ids=[case[0] for case in EXPLAIN_REFUSED],
)
def test_an_explanation_that_the_wire_cannot_express_is_refused(
    field: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build_explain(**arguments)
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_nothing_is_sent_for_a_refused_request(
    client_class: AnyClient, server: RecordingServer
) -> None:
    async with client_class(server.target) as client:
        with pytest.raises(InvalidRequestError):
            await client.rank("abc", user="u")
        with pytest.raises(InvalidRequestError, match="timeout_s"):
            await client.rank(["a"], user="u", timeout_s=0)
        with pytest.raises(InvalidRequestError, match="item"):
            client.explain(["a"], user="u")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequestError, match="timeout_s"):
            client.explain("a", user="u", timeout_s=0)
    assert server.received == []


def test_refusals_do_not_quote_the_user() -> None:
    secret = "anna@example.com"
    for arguments in ({"user": [secret]}, {"user": secret + "\ud800"}, {"items": [(secret,)]}):
        with pytest.raises(InvalidRequestError) as caught:
            build(**arguments)
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None
