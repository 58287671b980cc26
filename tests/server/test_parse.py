from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from rankloom_adapters.router import Fusion
from rankloom_engine.explain import SamplingParams
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_features.wire import InvalidFieldError
from rankloom_proto.v1.features_pb2 import Candidate, History
from rankloom_proto.v1.features_pb2 import Event as EventMessage
from rankloom_proto.v1.ranking_pb2 import (
    FUSION_EXACT_SUM,
    FUSION_PEFT_LINEAR,
    FUSION_TOP1,
    FUSION_UNSPECIFIED,
    ExplainOptions,
    ExplainRequest,
    RankOptions,
    RankRequest,
)
from rankloom_ranker.query import ExplainParams, ExplainQuery, RankQuery
from rankloom_server.parse import (
    check_fusion,
    check_text,
    check_texts,
    parse_explain,
    parse_rank,
)

SYNTHETIC = "synthetic-secret"


def request(**fields: object) -> RankRequest:
    given = {"user_id": "u", "candidates": [Candidate(item_id="a")], **fields}
    return RankRequest(**given)  # type: ignore[arg-type]


def options(**fields: object) -> RankRequest:
    return request(options=RankOptions(**fields))  # type: ignore[arg-type]


def without_subject() -> RankRequest:
    return RankRequest(candidates=[Candidate(item_id="a")])


REFUSED: dict[str, tuple[Callable[[], RankRequest], str]] = {
    "long request id": (lambda: request(request_id=SYNTHETIC * 10), "request_id"),
    "no candidates": (lambda: request(candidates=[]), "candidates"),
    "501 candidates": (
        lambda: request(candidates=[Candidate(item_id=str(n)) for n in range(501)]),
        "candidates",
    ),
    "candidate twice": (
        lambda: request(candidates=[Candidate(item_id=SYNTHETIC)] * 2),
        "candidates[1].item_id",
    ),
    "no subject": (without_subject, "subject"),
    "empty user": (lambda: request(user_id=""), "user_id"),
    "event without item": (
        lambda: request(history=History(events=[EventMessage()])),
        "history.events[0].item_id",
    ),
    "top_k 501": (lambda: options(top_k=501), "options.top_k"),
    "prefilter 501": (lambda: options(prefilter=501), "options.prefilter"),
    "unknown fusion": (lambda: options(fusion=99), "options.fusion"),
    "negative fusion": (lambda: options(fusion=-1), "options.fusion"),
    "explain_top_k 11": (lambda: options(explain_top_k=11), "options.explain_top_k"),
    "explain.max_tokens": (
        lambda: options(explain=ExplainOptions(max_tokens=257)),
        "options.explain.max_tokens",
    ),
    "explain.temperature": (
        lambda: options(explain=ExplainOptions(temperature=-1)),
        "options.explain.temperature",
    ),
    "explain.fusion": (
        lambda: options(explain=ExplainOptions(fusion=FUSION_TOP1)),
        "options.explain.fusion",
    ),
    "explain.revision": (
        lambda: options(explain=ExplainOptions(revision=0)),
        "options.explain.revision",
    ),
    "explain.bundle_digest": (
        lambda: options(explain=ExplainOptions(bundle_digest=SYNTHETIC)),
        "options.explain.bundle_digest",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_a_wrong_field_by_its_path(name: str) -> None:
    make, field = REFUSED[name]
    with pytest.raises(InvalidFieldError) as caught:
        parse_rank(make())
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.description}"
    assert SYNTHETIC not in str(caught.value)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_only_peft_linear_needs_experts_of_one_rank(fusion: Fusion) -> None:
    query = RankQuery("", UserQuery("u", None, (Item("a"),)), fusion=fusion)
    check_fusion(query, (8, 8, 8))
    if fusion is not Fusion.PEFT_LINEAR:
        check_fusion(query, (8, 4))
        return
    with pytest.raises(InvalidFieldError, match="PEFT_LINEAR needs"):
        check_fusion(query, (8, 4))


def test_a_bare_request_takes_the_defaults() -> None:
    user = UserQuery("u", None, (Item("a"),))
    assert parse_rank(request()) == RankQuery(
        "", user, top_k=None, allow_fallback=True, allow_partial=False, revision=None
    )


def test_options_are_read() -> None:
    message = options(
        top_k=3, allow_fallback=False, allow_partial=True, fusion=FUSION_TOP1, revision=7
    )
    message.request_id = "r" * 128
    query = parse_rank(message)
    assert (query.top_k, query.allow_fallback, query.revision) == (3, False, 7)
    assert query.allow_partial
    assert (query.fusion, query.request_id) == (Fusion.TOP1, "r" * 128)


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (FUSION_UNSPECIFIED, Fusion.EXACT_SUM),
        (FUSION_EXACT_SUM, Fusion.EXACT_SUM),
        (FUSION_PEFT_LINEAR, Fusion.PEFT_LINEAR),
        (FUSION_TOP1, Fusion.TOP1),
    ],
)
def test_fusion_are_read(wire: int, expected: Fusion) -> None:
    assert parse_rank(options(fusion=wire)).fusion is expected


def test_how_to_explain_the_best_items_is_read() -> None:
    query = parse_rank(
        options(explain_top_k=10, explain=ExplainOptions(max_tokens=9, seed=3, max_evidence=0))
    )
    assert query.explain_top_k == 10
    assert query.explaining == ExplainParams(SamplingParams(9, seed=3), max_evidence=0)
    assert parse_rank(request()).explaining == ExplainParams()


def test_top_k_of_zero_is_all() -> None:
    assert parse_rank(options(top_k=0)).top_k is None


@pytest.mark.parametrize(("given", "expected"), [(0, None), (20, 20), (500, 500)])
def test_a_prefilter_is_read(given: int, expected: int | None) -> None:
    assert parse_rank(options(prefilter=given)).prefilter == expected
    assert parse_rank(request()).prefilter is None


def test_revision_zero_is_a_pin() -> None:
    assert parse_rank(options(revision=0)).revision == 0


def test_a_history_may_be_empty() -> None:
    assert parse_rank(request(history=History())).user.history == ()
    events = [EventMessage(item_id="x", liked=True)]
    assert parse_rank(request(history=History(events=events))).user.history == (Event("x", True),)


@pytest.mark.parametrize("title", ["", "  \t"])
def test_an_item_that_nobody_knows_needs_a_title(title: str) -> None:
    user = UserQuery("u", None, (Item("known"), Item("new", title="New"), Item("x", title=title)))
    with pytest.raises(InvalidFieldError, match=r"^candidates\[2\]\.text\.title: "):
        check_texts(RankQuery("", user), Catalogue([Item("known", title="Known")]))


def test_known_items_need_no_text() -> None:
    user = UserQuery("u", None, (Item("known"), Item("new", title="New")))
    check_texts(RankQuery("", user), Catalogue([Item("known", title="Known")]))


def explain_request(**fields: object) -> ExplainRequest:
    given = {"user_id": "u", "candidate": Candidate(item_id="a"), **fields}
    return ExplainRequest(**given)  # type: ignore[arg-type]


def explain_options(**fields: object) -> ExplainRequest:
    return explain_request(options=ExplainOptions(**fields))  # type: ignore[arg-type]


EXPLAIN_REFUSED: dict[str, tuple[ExplainRequest, str]] = {
    "long request id": (explain_request(request_id=SYNTHETIC * 10), "request_id"),
    "no candidate": (ExplainRequest(user_id="u"), "candidate.item_id"),
    "no subject": (ExplainRequest(candidate=Candidate(item_id="a")), "subject"),
    "empty user": (explain_request(user_id=""), "user_id"),
    "event without item": (
        explain_request(history=History(events=[EventMessage()])),
        "history.events[0].item_id",
    ),
    "max_tokens 257": (explain_options(max_tokens=257), "options.max_tokens"),
    "temperature above": (explain_options(temperature=2.001), "options.temperature"),
    "temperature below": (explain_options(temperature=-0.001), "options.temperature"),
    "temperature infinite": (explain_options(temperature=math.inf), "options.temperature"),
    "temperature NaN": (explain_options(temperature=math.nan), "options.temperature"),
    "unknown fusion": (explain_options(fusion=99), "options.fusion"),
}


@pytest.mark.parametrize("name", EXPLAIN_REFUSED)
def test_refuses_a_wrong_field_of_an_explanation_by_its_path(name: str) -> None:
    message, field = EXPLAIN_REFUSED[name]
    with pytest.raises(InvalidFieldError) as caught:
        parse_explain(message)
    assert caught.value.field == field
    assert SYNTHETIC not in str(caught.value)


def test_a_bare_explanation_takes_the_defaults() -> None:
    ranking = RankQuery("", UserQuery("u", None, (Item("a"),)), allow_fallback=False)
    sampling = SamplingParams(max_tokens=96, temperature=0.0, seed=0)
    assert parse_explain(explain_request()) == ExplainQuery(ranking, ExplainParams(sampling))
    assert parse_explain(explain_options(max_tokens=0)).params.sampling == sampling


def test_options_of_an_explanation_are_read() -> None:
    message = explain_options(
        max_tokens=256, temperature=2.0, seed=2**64 - 1, fusion=FUSION_TOP1, revision=0
    )
    query = parse_explain(message, caller="c")
    assert query.params.sampling == SamplingParams(max_tokens=256, temperature=2.0, seed=2**64 - 1)
    assert query.ranking.fusion is Fusion.TOP1
    assert (query.ranking.revision, query.ranking.caller) == (0, "c")


def test_an_item_to_explain_that_nobody_knows_needs_a_title() -> None:
    catalogue = Catalogue([Item("known", title="Known")])
    check_text(Item("known"), catalogue, "candidate")
    with pytest.raises(InvalidFieldError, match=r"^candidate\.text\.title: "):
        check_text(Item("new", title=" "), catalogue, "candidate")
