"""`retrieve` and `recommend` of both clients and the command, against a server of the real wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from client_sdk.clients import AnyClient, ThreadedClient
from rankloom import (
    AsyncClient,
    DeadlineExceededError,
    Event,
    FallbackReason,
    InvalidRequestError,
    ItemSelection,
    OverloadedError,
    RankOptions,
    RecommendOptions,
    RetrievalOrder,
    RetrieveOptions,
    Revision,
    Timing,
)
from rankloom._cli.main import main
from rankloom.testing import FakeServer, after, make_recommendation, make_retrieval

HISTORY = (Event("318", liked=True, time=datetime(2024, 1, 2, tzinfo=UTC)),)
SELECTION = ItemSelection(
    exclude_seen=False,
    exclude_item_ids=("1",),
    with_attributes=("Drama",),
    without_attributes=("War", "Western"),
)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(params=[ThreadedClient, AsyncClient])
def kind(request: pytest.FixtureRequest) -> AnyClient:
    found: AnyClient = request.param
    return found


async def test_what_is_asked_arrives(server: FakeServer, kind: AnyClient) -> None:
    retrieving = RetrieveOptions(
        selection=SELECTION, allow_fallback=False, revision=Revision(7, "digest")
    )
    ranking = RankOptions(allow_partial=True, revision=7, explain_top_k=2)
    recommending = RecommendOptions(
        retrieve_k=50, selection=SELECTION, diversity=0.5, ranking=ranking
    )
    async with kind(server.target, timeout_s=5.0) as client:
        await client.retrieve(30, user="42", options=retrieving, request_id="r")
        await client.recommend(5, history=HISTORY, options=recommending, timeout_s=3.0)
        await client.retrieve(k=1, user="42")
        await client.recommend(k=2, user="42")
    [first, plain], [second, plainer] = server.retrieve_calls, server.recommend_calls
    assert (first.k, first.user, first.history, first.request_id) == (30, "42", None, "r")
    assert first.options == retrieving
    assert 3.5 < first.timeout_s < 5.5
    assert (second.k, second.user, second.history) == (5, None, HISTORY)
    assert second.options == recommending
    assert second.timeout_s < 3.5
    assert (plain.options, plainer.options) == (RetrieveOptions(), RecommendOptions())


async def test_what_is_answered_comes_back(server: FakeServer, kind: AnyClient) -> None:
    from dataclasses import replace

    found = replace(
        make_retrieval({"a": 1.5, "b": 2.0}),
        order=RetrievalOrder.POPULARITY,
        fallback_reason=FallbackReason.FEATURES_UNAVAILABLE,
        cold_start=True,
        history_version=9,
        timing=Timing(0.0, 0.25, 0.0, 0.0, 0.5, search_s=0.125),
        request_id="r",
    )
    server.on_retrieve(found)
    recommended = replace(make_recommendation({"a": 1.0, "b": 2.0}), history_version=3)
    server.on_recommend(recommended)
    async with kind(server.target) as client:
        assert await client.retrieve(2, user="42", request_id="r") == found
        answer = await client.recommend(2, user="42", request_id="r")
    assert found.item_ids == ("b", "a")
    assert [item.item_id for item in answer.items] == ["b", "a"]
    assert replace(answer, ranking=recommended.ranking) == recommended


async def test_scores_are_cut_at_k_and_scripts_are_played(
    server: FakeServer, kind: AnyClient
) -> None:
    server.on_retrieve(OverloadedError, {"a": 1.0, "b": 3.0, "c": 2.0})
    server.on_recommend(after(60.0, {"a": 1.0}), {"a": 1.0, "b": 2.0})
    async with kind(server.target) as client:
        with pytest.raises(OverloadedError):
            await client.retrieve(2, user="42")
        assert (await client.retrieve(2, user="42")).item_ids == ("b", "c")
        with pytest.raises(DeadlineExceededError):
            await client.recommend(1, user="42", timeout_s=0.1)
        found = await client.recommend(1, user="42")
        assert [item.item_id for item in found.items] == ["b"]
        server.on_retrieve()
        left = RetrieveOptions(selection=ItemSelection(exclude_item_ids=("1",)))
        assert (await client.retrieve(3, user="42", options=left)).item_ids == ("2", "3", "4")


BAD = {
    "k": {"k": -1},
    "k of text": {"k": "3"},
    "no user": {"user": None},
    "attributes as one text": {
        "options": RetrieveOptions(selection=ItemSelection(with_attributes="Drama"))  # type: ignore[arg-type]
    },
    "options of a ranking": {"options": RankOptions()},
    "a lone surrogate": {
        "options": RetrieveOptions(selection=ItemSelection(exclude_item_ids=("\ud800",)))
    },
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
async def test_wrong_arguments_are_refused_before_anything_is_sent(
    server: FakeServer, kind: AnyClient, changes: dict[str, object]
) -> None:
    given = {"k": 3, "user": "42", **changes}
    async with kind(server.target) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.retrieve(**given)  # type: ignore[arg-type]
    assert caught.value.violations
    assert not server.calls


def test_the_commands_print_tables_and_json(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on_retrieve({"318": 2.0, "50": 1.0})
    server.on_recommend({"318": 2.0, "50": 1.0})
    common = ["--server", server.target, "--user", "42", "--k", "2"]
    assert main(["retrieve", *common, "--with-attribute", "Drama", "--include-seen"]) == 0
    out = capsys.readouterr().out
    assert "order     vector" in out
    assert "   1  318   2.0000" in out
    [call] = server.retrieve_calls
    assert call.options.selection == ItemSelection(exclude_seen=False, with_attributes=("Drama",))
    assert main(["recommend", *common, "--diversity", "0.3", "--exclude", "9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["item_id"] for item in found["ranking"]["items"]] == ["318", "50"]
    [asked] = server.recommend_calls
    assert (asked.options.diversity, asked.options.selection.exclude_item_ids) == (0.3, ("9",))
    assert main(["recommend", *common]) == 0
    assert "rank  item   score  probability" in capsys.readouterr().out
