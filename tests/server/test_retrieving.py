"""Retrieve over the wire: the nearest items, fresh, by selection, and honest where it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest

from cases.hanging_server import HANGING, HangingDecoder
from rankloom_engine.model import Decoder
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import Event, History
from rankloom_proto.v1.ranking_pb2 import ItemSelection, RetrieveOptions
from server.rankings import known_user, rank, ranking_channel, request
from server.retrievals import (
    ADDED,
    ids,
    item_id,
    most_popular,
    nearest,
    recommend,
    retrieve,
    scores,
    with_added_item,
)
from server.rollouts import rolling_out
from server.served_parts import ServedParts
from server.servers import failure_of
from server.test_live_events import NEWCOMER, events_file, liked, serving

__all__ = ["events_file"]
SECRET = "synthetic-secret"


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(parts) as channel:
        yield channel


def selecting(**fields: object) -> RetrieveOptions:
    return RetrieveOptions(selection=ItemSelection(**fields))  # type: ignore[arg-type]


async def test_the_nearest_unseen_items_come_with_their_scores(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    user, loaded = known_user(parts), parts.loaded
    answer = await retrieve(channel, user_id=user, k=5, request_id="r-1")
    assert ids(answer) == nearest(loaded, user)[:5]
    assert (answer.request_id, answer.revision.number) == ("r-1", 1)
    assert answer.revision.bundle_digest == loaded.digest
    assert answer.order == ranking_pb2.RETRIEVAL_ORDER_VECTOR
    assert not answer.cold_start
    assert answer.history_version == loaded.provider.events.version(user) > 0
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    indices = np.array([loaded.catalogue.index(each) for each in ids(answer)])
    expected = scores(loaded, user)[indices].tolist()
    assert [item.score for item in answer.items] == pytest.approx(expected, abs=1e-5)
    timing = answer.timing
    assert timing.total.ToNanoseconds() >= timing.search.ToNanoseconds() > 0
    assert timing.model.ToNanoseconds() == 0


async def test_selections_are_kept(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    user, loaded = known_user(parts), parts.loaded
    every = await retrieve(channel, user_id=user, k=1000, options=selecting(exclude_seen=False))
    assert len(every.items) == len(loaded.catalogue)
    unseen = nearest(loaded, user)
    assert ids(await retrieve(channel, user_id=user, k=1000)) == unseen
    comedies = nearest(loaded, user, lambda n: "Comedy" in loaded.catalogue.items[n].attributes)
    assert 0 < len(comedies) < len(unseen)
    only = await retrieve(channel, user_id=user, k=9, options=selecting(with_attributes=["Comedy"]))
    assert ids(only) == comedies[:9]
    none = await retrieve(
        channel, user_id=user, k=1000, options=selecting(without_attributes=["Comedy"])
    )
    assert set(ids(none)) == set(unseen) - set(comedies)
    left = selecting(exclude_item_ids=[*unseen[:2], "unknown"])
    assert ids(await retrieve(channel, user_id=user, k=3, options=left)) == unseen[2:5]


async def test_nothing_is_an_answer(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    nothing = selecting(with_attributes=["Comedy"], without_attributes=["Comedy"])
    answer = await retrieve(channel, user_id=known_user(parts), k=5, options=nothing)
    assert not answer.items


@pytest.mark.parametrize("user", [{"user_id": "nobody"}, {"history": History()}])
async def test_a_new_user_gets_what_is_popular_and_is_told_so(
    channel: grpc.aio.Channel, parts: ServedParts, user: dict[str, object]
) -> None:
    answer = await retrieve(channel, k=7, **user)
    assert ids(answer) == most_popular(parts.loaded)[:7]
    assert (answer.order, answer.cold_start) == (ranking_pb2.RETRIEVAL_ORDER_POPULARITY, True)
    assert answer.fallback_reason == ranking_pb2.FALLBACK_REASON_UNSPECIFIED
    assert answer.items[0].score == parts.loaded.features.popularity.max()


async def test_an_inline_history_is_a_user(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    seen = item_id(parts.loaded, 3)
    history = History(events=[Event(item_id=seen, liked=True)])
    answer = await retrieve(channel, history=history, k=1000)
    assert len(answer.items) == len(parts.loaded.catalogue) - 1
    assert seen not in ids(answer)
    assert not answer.HasField("history_version")


async def test_what_was_recorded_is_in_the_next_retrieval(
    parts: ServedParts, events_file: Path
) -> None:
    async with serving(parts, events_file) as (channel, features):
        before = await retrieve(channel, user_id=NEWCOMER, k=1000)
        assert before.cold_start
        first, second = ids(before)[:2]
        await features.RecordEvents(liked(NEWCOMER, first), timeout=10)
        after = await retrieve(channel, user_id=NEWCOMER, k=1000)
        assert (after.order, after.cold_start) == (ranking_pb2.RETRIEVAL_ORDER_VECTOR, False)
        assert first not in ids(after)
        await features.RecordEvents(liked(NEWCOMER, second), timeout=10)
        later = await retrieve(channel, user_id=NEWCOMER, k=1000)
        assert later.history_version > after.history_version
        assert second not in ids(later)
        scores = [{item.item_id: item.score for item in each.items} for each in (after, later)]
        assert all(scores[0][item] != scores[1][item] for item in ids(later))


async def test_an_added_item_comes_with_its_revision_and_goes_with_it(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = with_added_item(served_folder, tmp_path / "other")
    async with rolling_out(served_folder, tmp_path / "state") as server:

        async def answered() -> list[tuple[int, bool]]:
            near = await retrieve(server.ranking, user_id=known_user(parts), k=1000)
            best = (await recommend(server.ranking, user_id=known_user(parts), k=100)).ranking
            recommended = [item.item_id for item in best.items]
            return [
                (near.revision.number, ADDED.item_id in ids(near)),
                (best.revision.number, ADDED.item_id in recommended),
            ]

        await server.stage(other)
        assert await answered() == [(1, False)] * 2
        await server.promote(2)
        assert await answered() == [(2, True)] * 2
        await server.roll_back(2, 2)
        assert await answered() == [(1, False)] * 2


async def test_no_language_model_is_waited_for(parts: ServedParts) -> None:
    decoder = HangingDecoder(parts.decoder)
    hanging = replace(parts, decoder=cast("Decoder", decoder))
    async with ranking_channel(hanging) as channel:
        hung = asyncio.create_task(rank(channel, request(parts, HANGING)))
        await asyncio.sleep(0.1)  # the model thread is in that pass
        try:
            for _ in range(20):
                assert len((await retrieve(channel, user_id=known_user(parts), k=5)).items) == 5
            assert not hung.done()
        finally:
            decoder.go.set()
            await hung


async def test_popularity_answers_where_features_do_not(
    parts: ServedParts, events_file: Path
) -> None:
    async with serving(parts, events_file) as (channel, _):
        with events_file.open("r+b") as file:
            file.write(b"\xff" * events_file.stat().st_size)
        answer = await retrieve(channel, user_id=known_user(parts), k=4)
        assert answer.order == ranking_pb2.RETRIEVAL_ORDER_POPULARITY
        assert answer.fallback_reason == ranking_pb2.FALLBACK_REASON_FEATURES_UNAVAILABLE
        assert ids(answer) == most_popular(parts.loaded)[:4]
        strict = RetrieveOptions(allow_fallback=False)
        call = retrieve(channel, user_id=known_user(parts), k=4, options=strict)
        failure = await failure_of(call)
        assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.reason == "FALLBACK_REFUSED"


BAD: dict[str, tuple[dict[str, object], str]] = {
    "no items": ({"k": 0}, "k"),
    "too many": ({"k": 1001}, "k"),
    "an empty user": ({"user_id": ""}, "user_id"),
    "a long request id": ({"request_id": "x" * 129}, "request_id"),
    "a long id": (
        {"options": selecting(exclude_item_ids=[SECRET * 20])},
        "options.selection.exclude_item_ids[0]",
    ),
    "many ids": (
        {"options": selecting(exclude_item_ids=[str(n) for n in range(1001)])},
        "options.selection.exclude_item_ids",
    ),
    "an empty attribute": (
        {"options": selecting(with_attributes=[""])},
        "options.selection.with_attributes[0]",
    ),
    "an unknown attribute": (
        {"options": selecting(without_attributes=["Comedy", SECRET])},
        "options.selection.without_attributes[1]",
    ),
    "a digest alone": (
        {"options": RetrieveOptions(bundle_digest="0")},
        "options.bundle_digest",
    ),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD)
async def test_bad_requests_name_the_field(
    channel: grpc.aio.Channel, parts: ServedParts, fields: dict[str, object], field: str
) -> None:
    failure = await failure_of(
        retrieve(channel, **{"user_id": known_user(parts), "k": 3, **fields})
    )
    assert (failure.code, failure.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert SECRET not in failure.raw


async def test_a_misspelt_attribute_is_answered_with_the_likely_one(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    wrong = selecting(with_attributes=["Comedie"])
    failure = await failure_of(retrieve(channel, user_id=known_user(parts), k=3, options=wrong))
    assert "did you mean 'Comedy'?" in failure.message


async def test_a_pinned_revision_must_be_there(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    user = known_user(parts)
    pinned = RetrieveOptions(revision=1, bundle_digest=parts.loaded.digest)
    assert (await retrieve(channel, user_id=user, k=1, options=pinned)).items
    for other in (RetrieveOptions(revision=9), RetrieveOptions(revision=1, bundle_digest="0")):
        failure = await failure_of(retrieve(channel, user_id=user, k=1, options=other))
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "REVISION_UNKNOWN")
