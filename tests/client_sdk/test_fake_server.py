"""`rankloom.testing`, used as in the tests of an application that calls a rankloom server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import rankloom.errors
import rankloom.testing
from rankloom import (
    AsyncClient,
    AsyncFeatureClient,
    AsyncRolloutClient,
    Client,
    ConnectionFailedError,
    DeadlineExceededError,
    ErrorReason,
    Event,
    Evidence,
    ExplainOptions,
    Explanation,
    ExplanationSource,
    FallbackLevel,
    FallbackReason,
    FeatureClient,
    FeatureQuery,
    FieldViolation,
    Fusion,
    InvalidRequestError,
    Item,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    RankedItem,
    RankloomError,
    RankOptions,
    Revision,
    Route,
    Routing,
    ServerError,
    TabularFeatures,
    Timing,
    UnavailableError,
    UserFeatures,
    Verdict,
)
from rankloom.testing import (
    ExplainCall,
    FakeServer,
    FeatureCall,
    RankCall,
    after,
    fail,
    make_explanation,
    make_features,
    make_item_explanation,
    make_ranking,
    make_stored_explanation,
)


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Client]:
    with Client(fake.target) as client:
        yield client


def test_scores_rank_the_items_of_the_call(fake: FakeServer, client: Client) -> None:
    fake.on_rank({"318": 2.0, "50": -1.0, "1": None})
    ranking = client.rank(["1", "50", "2", "318"], user="42", request_id="r")
    assert ranking.scores() == {"318": 2.0, "50": -1.0}
    assert [item.item_id for item in ranking.items] == ["318", "50", "1", "2"]
    assert [item.rank for item in ranking.items] == [1, 2, 3, 4]
    assert ranking.items[0].probability == pytest.approx(0.8808, abs=1e-4)
    assert (ranking.request_id, ranking.is_fallback) == ("r", False)
    best = client.rank(["1", "50", "318"], user="42", options=RankOptions(top_k=1))
    assert [item.item_id for item in best.items] == ["318"]


def test_without_a_script_items_have_fixed_scores(fake: FakeServer, client: Client) -> None:
    first = client.rank(["a", "b", "c"], user="42")
    assert len(set(first.scores().values())) == 3
    assert client.rank(["c", "b"], history=[]).scores().items() < first.scores().items()
    fake.on_rank({"a": 1.0})
    assert client.rank(["a", "b"], user="42").scores() == {"a": 1.0}
    fake.on_rank()
    assert client.rank(["b", "c", "a"], user="42").scores() == first.scores()


def test_a_whole_ranking_arrives_as_it_is(fake: FakeServer, client: Client) -> None:
    scripted = replace(
        make_ranking({"a": 1.0}),
        request_id="r",
        revision=Revision(7, "sha256:ab"),
        routing=Routing(
            Route.SINGLE, (rankloom.ExpertWeight("drama", "d1", 0.75),), 0.5, True, history_events=3
        ),
        fallback_level=FallbackLevel.TREES,
        fallback_reason=FallbackReason.ENGINE_FAILED,
        items=(RankedItem("b", 1, 0.5, 0.25, True), RankedItem("a", 2, 0.0, 0.0, False)),
        timing=Timing(0.001, 0.002, 0.003, 0.25, 1.5),
    )
    newer = replace(
        scripted, fallback_level=FallbackLevel.UNKNOWN, fallback_reason=FallbackReason.UNKNOWN
    )
    fake.on_rank(scripted, newer)
    assert client.rank(["x"], user="42") == scripted
    assert client.rank(["x"], user="42") == newer


def test_answers_come_in_turn_and_the_last_one_stays(fake: FakeServer, client: Client) -> None:
    fake.on_rank({"a": 1.0}, OverloadedError, lambda call: {call.item_ids[0]: len(call.items)})
    assert client.rank(["a"], user="u").scores() == {"a": 1.0}
    with pytest.raises(OverloadedError):
        client.rank(["a"], user="u")
    assert client.rank(["b", "a"], user="u").scores() == {"b": 2.0}
    assert client.rank(["c"], user="u").scores() == {"c": 1.0}


def test_a_call_is_recorded_as_it_was_made(fake: FakeServer, client: Client) -> None:
    film = Item("b", title="Été", year=1999, attributes=("Drama",), description="long")
    history = (Event("x", liked=True), Event("y", liked=False))
    options = RankOptions(
        top_k=1, allow_fallback=False, allow_partial=True, fusion=Fusion.TOP1, prefilter=2
    )
    client.rank(["a", film], history=history, options=options, request_id="r", timeout_s=9)
    client.rank(["a"], user="42")
    assert fake.rank_calls[0] == RankCall(
        items=(Item("a"), film),
        user=None,
        history=history,
        options=options,
        request_id="r",
        timeout_s=fake.rank_calls[0].timeout_s,
    )
    assert 7.0 < fake.rank_calls[0].timeout_s < 9.5
    assert fake.rank_calls[1].options == RankOptions()
    assert (fake.rank_calls[1].user, fake.rank_calls[1].history) == ("42", None)


OF_NO_SERVER = (
    "RankloomError",
    "ClientClosedError",
    "BufferFullError",
    "EventsNotRecordedError",
)
ERRORS = [
    getattr(rankloom.errors, name)
    for name in rankloom.errors.__all__
    if name.endswith("Error") and name not in OF_NO_SERVER
]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_of_a_server_can_be_scripted(
    kind: type[RankloomError], fake: FakeServer, client: Client
) -> None:
    fake.on_rank(fail(kind, "no luck"))
    with pytest.raises(RankloomError) as caught:
        client.rank(["a"], user="u")
    assert (type(caught.value), caught.value.message) == (kind, "no luck")


def test_errors_have_their_details(fake: FakeServer, client: Client) -> None:
    violation = FieldViolation("candidates", "at most 500")
    fake.on_rank(
        fail(OverloadedError, reason=ErrorReason.OVERLOADED, retry_after_s=0.5),
        fail(InvalidRequestError, violations=(violation,)),
        fail(PreconditionError, reason=ErrorReason.REVISION_STALE, current=0),
        fail(ServerError, error_id="e-7"),
    )
    with pytest.raises(OverloadedError) as overloaded:
        client.rank(["a"], user="u")
    assert (overloaded.value.reason, overloaded.value.retry_after_s) == ("overloaded", 0.5)
    with pytest.raises(InvalidRequestError) as invalid:
        client.rank(["a"], user="u")
    assert invalid.value.violations == (violation,)
    with pytest.raises(PreconditionError) as stale:
        client.rank(["a"], user="u")
    assert stale.value.current == 0
    with pytest.raises(ServerError) as fault:
        client.rank(["a"], user="u")
    assert (fault.value.error_id, fault.value.reason) == ("e-7", None)


def test_an_error_that_never_comes_from_a_server_is_refused() -> None:
    with pytest.raises(ValueError, match="ClientClosedError never comes from a server"):
        fail(rankloom.ClientClosedError)


def test_the_client_retries_an_unavailable_server(fake: FakeServer, client: Client) -> None:
    fake.on_rank(fail(UnavailableError, retry_after_s=0.1), {"a": 1.0})
    assert client.rank(["a"], user="u").scores() == {"a": 1.0}
    assert len(fake.rank_calls) == 2


def test_a_late_answer(fake: FakeServer, client: Client) -> None:
    fake.on_rank(after(0.2, {"a": 1.0}), after(30.0, {"a": 1.0}))
    started = time.monotonic()
    assert client.rank(["a"], user="u").scores() == {"a": 1.0}
    assert time.monotonic() - started > 0.15
    with pytest.raises(DeadlineExceededError):
        client.rank(["a"], user="u", timeout_s=0.2)
    assert time.monotonic() - started < 10.0


def test_a_mistake_in_the_script_is_named(fake: FakeServer, client: Client) -> None:
    fake.on_rank(lambda call: {call.item_ids[5]: 1.0}, "a ranking")  # type: ignore[arg-type]
    with pytest.raises(ServerError, match="the test's function raised IndexError: tuple index"):
        client.rank(["a"], user="u")
    with pytest.raises(ServerError, match="a ranking was scripted as str; correct"):
        client.rank(["a"], user="u")


def test_explanations(fake: FakeServer, client: Client) -> None:
    whole = replace(make_explanation("You like it.", score=-1.0), request_id="r")
    fake.on_explain("You will  like it.", whole, ["You", after(0.1, " will"), NotFoundError])
    stream = client.explain("318", user="42", options=ExplainOptions(seed=3))
    assert list(stream) == ["You", " will", "  like", " it."]
    assert stream.result().text == "You will  like it."
    explanation: Explanation = client.explain("318", user="42").result()
    assert (explanation, explanation.verdict) == (whole, Verdict.DISLIKED)
    stream = client.explain("318", user="42")
    assert [next(stream), next(stream)] == ["You", " will"]
    with pytest.raises(NotFoundError):
        next(stream)
    call: ExplainCall = fake.explain_calls[0]
    assert (call.item, call.user, call.options) == (Item("318"), "42", ExplainOptions(seed=3))


def test_stored_explanations(fake: FakeServer, client: Client) -> None:
    default = client.explain("318", user="42", source="stored")
    assert len(list(default)) == 1, "a stored text comes whole"
    assert default.result().stored is not None
    whole = replace(make_stored_explanation("It is warm.", rating=2.0), request_id="r")
    missing = fail(NotFoundError, reason=ErrorReason.NO_STORED_EXPLANATION)
    fake.on_explain(whole, missing)
    assert client.explain("318", user="42", source="stored").result() == whole
    with pytest.raises(NotFoundError) as caught:
        client.explain("318", user="42", source="stored").result()
    assert caught.value.reason is ErrorReason.NO_STORED_EXPLANATION
    assert [call.source for call in fake.explain_calls] == [ExplanationSource.STORED] * 3
    client.explain("318", user="42").close()
    assert all(call.source is ExplanationSource.LIVE for call in fake.explain_calls[3:])


def test_an_explanation_without_a_script_fits_the_ranking(client: Client) -> None:
    ranking = client.rank(["a", "b", "c", "d"], user="u")
    for item in ranking.items:
        explanation = client.explain(item.item_id, user="u").result()
        assert (explanation.score, explanation.probability) == (item.score, item.probability)
        assert ("dislike" in explanation.text) == (explanation.verdict is Verdict.DISLIKED)


def test_explanations_come_with_a_ranking(fake: FakeServer, client: Client) -> None:
    options = RankOptions(explain_top_k=2, explain=ExplainOptions(max_evidence=1))
    evidence = [Evidence("x", True, 0.5)]
    whole = make_item_explanation("a", "You like it.", score=-1.0, evidence=evidence)
    fake.on_rank(
        {"a": 1.0, "b": -1.0, "c": None},
        replace(make_ranking({"a": 1.0}), explanations=(whole,)),
    )
    first = client.rank(["a", "b", "c"], user="u", options=options)
    texts = [(each.item_id, each.text) for each in first.explanations]
    assert texts == [("a", "The user will like a."), ("b", "The user will dislike b.")]
    assert client.rank(["a"], user="u").explanations == (whole,)
    assert fake.rank_calls[0].options == options


def test_features(fake: FakeServer) -> None:
    events = (Event("x", liked=True),)
    scripted = UserFeatures(
        (0.5, -1.0), "v1", False, events, 17, 1.5, TabularFeatures(((1.0,),), "s")
    )
    with FeatureClient(fake.target) as client:
        default = client.user_features(user="42", items=["a", "b"])
        assert default == make_features(FeatureQuery(user="42", items=["a", "b"]))
        assert default.predicted_ratings is None
        predicted = client.user_features(user="42", items=["a", "b"], predict_ratings=True)
        assert predicted.predicted_ratings is not None
        assert all(1.0 <= rating <= 5.0 for rating in predicted.predicted_ratings)
        assert client.user_features(history=[]).cold_start
        history = [*events, Event("y", liked=False)]
        newest = [client.user_features(history=history, max_events=n).events for n in (0, 1, 3)]
        assert newest == [(), tuple(history[1:]), tuple(history)]
        fake.on_features(
            scripted, lambda query: replace(scripted, feature_version=query.user or "")
        )
        assert client.user_features(user="42", items=["a"]) == scripted
        queries = [FeatureQuery(user="1"), FeatureQuery(user="2")]
        many = client.user_features_batch(queries)
    assert [each.feature_version for each in many] == ["1", "2"]
    call: FeatureCall = fake.feature_calls[0]
    assert call.queries == (FeatureQuery(user="42", items=(Item("a"), Item("b"))),)


async def test_the_same_server_in_asyncio(fake: FakeServer) -> None:
    fake.on_rank(after(0.1, {"a": 1.0}))
    async with AsyncClient(fake.target) as client:
        rankings = await asyncio.gather(*(client.rank(["a"], user=str(n)) for n in range(8)))
    assert [ranking.scores() for ranking in rankings] == [{"a": 1.0}] * 8
    async with AsyncFeatureClient(fake.target) as features:
        assert (await features.user_features(user="1")).feature_version == "fake"
    async with AsyncRolloutClient(fake.target) as operator:
        assert (await operator.list()).active == 1
    assert {call.user for call in fake.rank_calls} == {str(n) for n in range(8)}
    assert len(fake.calls) == 10


def test_two_servers_and_an_end() -> None:
    with FakeServer() as first, FakeServer() as second:
        assert first.target != second.target
        with Client(second.target) as client:
            client.rank(["a"], user="u")
        assert (len(first.calls), len(second.calls)) == (0, 1)
    with Client(second.target) as client, pytest.raises(ConnectionFailedError):
        client.rank(["a"], user="u")
    with FakeServer(port=int(second.target.rpartition(":")[2])) as third:
        assert third.target == second.target


class RetryingRanker:
    """The code of the docstring's reader: it tries again after an overload."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def best_of(self, items: list[str], *, user: str) -> str:
        try:
            return self._client.rank(items, user=user).items[0].item_id
        except OverloadedError as error:
            time.sleep(error.retry_after_s or 0.0)
            return self.best_of(items, user=user)


def test_the_example_in_the_docstring_runs() -> None:
    lines = (rankloom.testing.__doc__ or "").splitlines()
    code = "\n".join(line for line in lines if line.startswith("    ") or not line)
    namespace: dict[str, Any] = {"Ranker": RetryingRanker}
    exec(textwrap.dedent(code), namespace)
    namespace["test_the_ranker_survives_an_overload"]()


def test_it_needs_no_more_than_the_base_install() -> None:
    code = "import rankloom.testing, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not set(done.stdout.split()) & {"torch", "numpy", "pytest", "pydantic", "_pytest"}
    assert "rankloom" in done.stdout.split()
