"""Recommend over the wire: what Retrieve finds, as Rank orders it, by one revision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import grpc
import pytest

from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.store import StoredHistory, UserEvent
from rankloom_features.events import Event
from rankloom_features.provider import MAX_EVENTS_ON_LOOP
from rankloom_proto.v1 import features_pb2, ranking_pb2
from rankloom_proto.v1.ranking_pb2 import (
    ItemSelection,
    RankOptions,
    RecommendOptions,
    RecommendResponse,
)
from rankloom_ranker.loaded import load_bundle
from rankloom_server.feature_app import feature_server
from server.rankings import candidates, item_ids, known_user, order, rank, ranking_channel, request
from server.retrievals import ids, recommend, retrieve
from server.served_parts import ServedParts
from server.servers import failure_of, opened, settings
from server.test_live_events import NEWCOMER

TINY = 1e-5


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(parts) as channel:
        yield channel


def options(**fields: object) -> RecommendOptions:
    return RecommendOptions(**fields)  # type: ignore[arg-type]


def shown(answer: RecommendResponse) -> list[str]:
    return order(answer.ranking)


async def test_it_is_a_ranking_of_what_is_retrieved(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    user = known_user(parts)
    found = ids(await retrieve(channel, user_id=user, k=10))
    ranked = await rank(channel, request(parts, user_id=user, candidates=candidates(found)))
    answer = await recommend(
        channel, user_id=user, k=4, request_id="r", options=options(retrieve_k=10)
    )
    assert shown(answer) == order(ranked)[:4]
    scores = [item.score for item in answer.ranking.items]
    assert scores == pytest.approx([item.score for item in ranked.items[:4]], abs=TINY)
    assert (answer.ranking.request_id, answer.num_retrieved) == ("r", 10)
    assert answer.order == ranking_pb2.RETRIEVAL_ORDER_VECTOR
    assert answer.history_version == parts.loaded.provider.events.version(user)
    assert answer.ranking.revision == ranked.revision
    timing = answer.ranking.timing
    assert timing.search.ToNanoseconds() > 0
    assert timing.total.ToNanoseconds() > timing.model.ToNanoseconds() > 0


async def test_diverse_items_are_other_items(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    user = known_user(parts)
    plain = shown(await recommend(channel, user_id=user, k=16))
    answers = {
        diversity: shown(
            await recommend(channel, user_id=user, k=6, options=options(diversity=diversity))
        )
        for diversity in (0.0, TINY, 0.5, 1.0)
    }
    assert answers[0.0] == answers[TINY] == plain[:6]
    assert answers[1.0][0] == plain[0]
    assert len({tuple(each) for each in answers.values()}) == 3


async def test_the_best_are_explained(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    diverse = options(diversity=0.5, ranking=RankOptions(explain_top_k=2))
    answer = await recommend(channel, user_id=known_user(parts), k=3, options=diverse)
    assert [each.item_id for each in answer.ranking.explanations] == shown(answer)[:2]


async def test_a_new_user_is_ranked_among_what_is_popular(channel: grpc.aio.Channel) -> None:
    answer = await recommend(channel, user_id="nobody", k=3)
    assert answer.order == ranking_pb2.RETRIEVAL_ORDER_POPULARITY
    assert answer.ranking.routing.cold_start
    assert len(answer.ranking.items) == 3


async def test_nothing_is_an_answer(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    nothing = ItemSelection(with_attributes=["Comedy"], without_attributes=["Comedy"])
    answer = await recommend(
        channel, user_id=known_user(parts), k=3, options=options(selection=nothing)
    )
    assert (answer.num_retrieved, len(answer.ranking.items)) == (0, 0)
    assert answer.ranking.revision.bundle_digest == parts.loaded.digest


async def test_features_from_another_server_are_enough(
    parts: ServedParts, channel: grpc.aio.Channel
) -> None:
    user = known_user(parts)
    here = await recommend(channel, user_id=user, k=3)
    async with (
        opened(feature_server(settings().server, parts.loaded.features, "")) as target,
        ranking_channel(parts, features=target) as remote,
    ):
        there = await recommend(remote, user_id=user, k=3)
        assert shown(there) == shown(here)
        assert there.order == ranking_pb2.RETRIEVAL_ORDER_VECTOR
        found = await retrieve(remote, user_id=user, k=5)
        assert ids(found) == ids(await retrieve(channel, user_id=user, k=5))
        assert found.history_version == here.history_version


@pytest.mark.parametrize(
    ("num_events", "on_threads"),
    [
        (MAX_EVENTS_ON_LOOP, set[str]()),
        (MAX_EVENTS_ON_LOOP + 1, {"retrieve", "with_candidates", "_prepare_whole"}),
    ],
)
async def test_what_grows_with_a_long_history_runs_on_threads(
    parts: ServedParts,
    channel: grpc.aio.Channel,
    monkeypatch: pytest.MonkeyPatch,
    num_events: int,
    on_threads: set[str],
) -> None:
    found, to_thread = set[str](), asyncio.to_thread

    async def watched(work: Callable[..., object], *arguments: object) -> object:
        found.add(work.__name__)
        return await to_thread(work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", watched)
    items = parts.loaded.catalogue.item_ids[:2]
    events = [features_pb2.Event(item_id=items[n % 2], liked=True) for n in range(num_events)]
    history, few = features_pb2.History(events=events), options(retrieve_k=10)
    answer = await recommend(channel, history=history, k=3, options=few)
    assert len(answer.ranking.items) == 3
    assert found == on_threads


class GrowingEvents(MemoryEventStore):
    """A newcomer likes one item more after each time that somebody reads the history."""

    def __init__(self, items: Sequence[str]) -> None:
        super().__init__()
        self.left = list(items)

    def version(self, user_id: str) -> int:
        return super().history(user_id).version

    def history(
        self, user_id: str, version: int | None = None, most: int | None = None
    ) -> StoredHistory:
        found = super().history(user_id, version, most)
        if user_id == NEWCOMER and self.left:
            item = self.left.pop()
            self.append([UserEvent(item, NEWCOMER, Event(item, liked=True, time=1.0))])
        return found


@pytest.mark.parametrize("is_remote", [False, True], ids=["own features", "another server's"])
async def test_both_halves_are_of_one_history_whatever_is_recorded_between(
    parts: ServedParts, monkeypatch: pytest.MonkeyPatch, *, is_remote: bool
) -> None:
    events = GrowingEvents(item_ids(parts, 40))
    loaded = load_bundle(parts.loaded.bundle, events=events)
    monkeypatch.setattr("rankloom_server.revision_loader.load_bundle", lambda *_: loaded)
    async with AsyncExitStack() as stack:
        source: dict[str, object] = {}
        if is_remote:
            server = feature_server(settings().server, loaded.features, "")
            source["features"] = await stack.enter_async_context(opened(server))
        channel = await stack.enter_async_context(ranking_channel(parts, **source))
        for num_events in range(3):
            num_left = len(events.left)
            answer = await recommend(channel, user_id=NEWCOMER, k=40)
            assert answer.ranking.routing.history_events == num_events
            assert answer.history_version == num_events
            assert len(events.left) == num_left - 1, "the history was read once"


BAD: dict[str, tuple[dict[str, object], str]] = {
    "no items": ({"k": 0}, "k"),
    "too many": ({"k": 501}, "k"),
    "fewer retrieved than returned": ({"options": options(retrieve_k=2)}, "options.retrieve_k"),
    "too many retrieved": ({"options": options(retrieve_k=501)}, "options.retrieve_k"),
    "more than all diversity": ({"options": options(diversity=1.1)}, "options.diversity"),
    "no diversity at all": ({"options": options(diversity=float("nan"))}, "options.diversity"),
    "another k": ({"options": options(ranking=RankOptions(top_k=3))}, "options.ranking.top_k"),
    "many explained": (
        {"options": options(ranking=RankOptions(explain_top_k=11))},
        "options.ranking.explain_top_k",
    ),
    "an unknown attribute": (
        {"options": options(selection=ItemSelection(with_attributes=["?"]))},
        "options.selection.with_attributes[0]",
    ),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD)
async def test_bad_requests_name_the_field(
    channel: grpc.aio.Channel, parts: ServedParts, fields: dict[str, object], field: str
) -> None:
    given = {"user_id": known_user(parts), "k": 3, **fields}
    failure = await failure_of(recommend(channel, **given))
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
