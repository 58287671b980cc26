"""Explain over the wire, on a real bundle: what is told, and that it is the ranking's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import grpc
import pytest

from rankloom import AsyncClient, ExplainOptions, Verdict
from rankloom_adapters.revision import Revisions, Traffic
from rankloom_engine.explain import DEFAULT_EXPLAIN_TOKENS, SamplingParams
from rankloom_engine.loading import Hardware
from rankloom_engine.pool import EnginePool
from rankloom_engine.runner import EngineLimits
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_features.wire import query_to_wire
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import Candidate, History, ItemText
from rankloom_ranker.loaded import LoadedBundle
from rankloom_ranker.query import ExplainParams, ExplainQuery, RankQuery
from rankloom_ranker.ranker import Ranker
from rankloom_server.features import EmbeddedFeatures
from rankloom_server.pipeline import RankPipeline
from rankloom_server.revision_loader import ServedRevision
from server import rankings
from server.explanations import explain, request, stubborn, with_options
from server.rankings import (
    candidates,
    item_ids,
    known_user,
    rank,
    ranking_channel,
)
from server.served_parts import ServedParts, ranking_server
from server.servers import failure_of, opened


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(parts) as channel:
        yield channel


@pytest.fixture
async def talkative(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    """A server whose texts end only when they must."""
    async with ranking_channel(stubborn(parts)[0]) as channel:
        yield channel


async def test_the_answer_is_whole(talkative: grpc.aio.Channel, parts: ServedParts) -> None:
    told = await explain(talkative, request(parts, request_id="r-1"))
    ranked = await rank(talkative, rankings.request(parts, 1))
    assert told.text
    assert all(told.texts)
    assert told.final.request_id == "r-1"
    assert told.final.revision == ranked.revision
    assert told.final.routing == ranked.routing
    assert told.final.prompt_tokens > ranked.routing.history_events
    assert told.final.generated_tokens == DEFAULT_EXPLAIN_TOKENS
    assert told.final.stop_reason == ranking_pb2.STOP_REASON_MAX_TOKENS


async def test_the_verdict_is_the_rankings(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    ranked = await rank(channel, rankings.request(parts, 30))
    verdicts = set()
    for item in (*ranked.items[:3], *ranked.items[-3:]):
        message = request(parts, candidate=candidates([item.item_id])[0])
        final = (await explain(channel, message)).final
        assert final.score == pytest.approx(item.score, abs=1e-4)
        assert final.probability == pytest.approx(item.probability, abs=1e-4)
        liked = final.verdict == ranking_pb2.VERDICT_LIKED
        assert liked == (item.probability >= 0.5)
        verdicts.add(final.verdict)
    assert verdicts == {ranking_pb2.VERDICT_LIKED, ranking_pb2.VERDICT_DISLIKED}


async def test_the_same_words_come_again(talkative: grpc.aio.Channel, parts: ServedParts) -> None:
    greedy = [(await explain(talkative, request(parts))).text for _ in range(2)]
    drawn = [
        (await explain(talkative, with_options(parts, temperature=1.5, seed=seed))).text
        for seed in (7, 7, 8)
    ]
    assert greedy[0] == greedy[1]
    assert drawn[0] == drawn[1]
    assert len({greedy[0], drawn[0], drawn[2]}) == 3


async def test_the_text_is_as_long_as_allowed(
    talkative: grpc.aio.Channel, parts: ServedParts
) -> None:
    whole = (await explain(talkative, request(parts))).text
    cut = await explain(talkative, with_options(parts, max_tokens=3))
    assert cut.final.generated_tokens == 3
    assert cut.final.stop_reason == ranking_pb2.STOP_REASON_MAX_TOKENS
    assert whole.startswith(cut.text)
    longest = await explain(talkative, with_options(parts, max_tokens=256))
    assert longest.final.generated_tokens == 256


async def test_fusion_are_heeded(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    message = with_options(parts, fusion=ranking_pb2.FUSION_TOP1, max_tokens=1)
    routing = (await explain(channel, message)).final.routing
    assert [each.weight for each in routing.weights] == [1.0]


async def test_a_new_user_is_explained_by_the_global_expert(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    for fields in ({"user_id": "nobody"}, {"history": History()}):
        routing = (await explain(channel, request(parts, **fields))).final.routing
        assert (routing.route, routing.cold_start) == (ranking_pb2.ROUTE_GLOBAL, True)


async def test_a_history_says_what_the_user_id_says(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    events = parts.loaded.provider.features(UserQuery(known_user(parts), None)).events
    history = query_to_wire(UserQuery(None, events)).history
    by_id = await explain(channel, request(parts))
    by_history = await explain(channel, request(parts, history=history))
    assert by_history.text == by_id.text
    assert by_history.final.score == pytest.approx(by_id.final.score, abs=1e-4)


async def test_an_item_that_the_catalogue_lacks_is_explained_by_its_text(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    new = Candidate(item_id="new", text=ItemText(title="A New One", year=1999))
    final = (await explain(channel, request(parts, candidate=new))).final
    assert final.verdict in (ranking_pb2.VERDICT_LIKED, ranking_pb2.VERDICT_DISLIKED)


async def test_the_serving_revision_can_be_pinned(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    assert (await explain(channel, with_options(parts, revision=1))).final.revision.number == 1
    for other in (0, 2):
        failure = await failure_of(explain(channel, with_options(parts, revision=other)))
        assert failure.code is grpc.StatusCode.NOT_FOUND
        assert failure.reason == "REVISION_UNKNOWN"


async def test_users_at_the_same_time_get_their_own_words(
    talkative: grpc.aio.Channel, parts: ServedParts
) -> None:
    messages = [
        request(parts, candidate=candidate, user_id=user)
        for candidate in candidates(item_ids(parts, 3))
        for user in (known_user(parts), "nobody")
    ]
    alone = [await explain(talkative, message) for message in messages]
    together = await asyncio.gather(*(explain(talkative, message) for message in messages))
    assert [told.text for told in together] == [told.text for told in alone]


async def test_the_words_end_in_time_for_the_verdict(parts: ServedParts) -> None:
    slow, decoder = stubborn(parts)
    decoder.before_decode = lambda: time.sleep(0.15)
    async with ranking_channel(slow, default_deadline_s=2.4) as channel:
        for timeout_s in (2.4, None):
            message = with_options(parts, max_tokens=256)
            told = await explain(channel, message, timeout_s=timeout_s)
            assert told.final.stop_reason == ranking_pb2.STOP_REASON_DEADLINE
            assert 0 < told.final.generated_tokens < 20
            assert told.text


async def test_the_sdk_reads_it(parts: ServedParts) -> None:
    async with (
        ranking_server(stubborn(parts)[0]) as server,
        opened(server) as target,
        AsyncClient(target, timeout_s=20.0) as client,
    ):
        ranking = await client.rank(item_ids(parts, 1), user=known_user(parts))
        options = ExplainOptions(revision=ranking.revision)
        stream = client.explain(item_ids(parts, 1)[0], user=known_user(parts), options=options)
        texts = [text async for text in stream]
        explanation = await stream.result()
    liked = ranking.items[0].probability >= 0.5
    assert explanation.verdict is (Verdict.LIKED if liked else Verdict.DISLIKED)
    assert explanation.routing == ranking.routing
    assert explanation.text == "".join(texts) != ""


@asynccontextmanager
async def served_by(parts: ServedParts) -> AsyncIterator[ServedRevision]:
    pool = EnginePool(Hardware(), EngineLimits(), 0, load=lambda *_: parts.decoder)
    engine = await pool.admit(parts.loaded.engine_parts())
    yield ServedRevision(
        Ranker(named(parts.loaded, "first")), engine, EmbeddedFeatures(parts.loaded.provider)
    )
    await pool.close()


def named(loaded: LoadedBundle, digest: str) -> LoadedBundle:
    return replace(loaded, bundle=replace(loaded.bundle, digest=digest))


def question(parts: ServedParts) -> ExplainQuery:
    user = UserQuery(known_user(parts), None, parts.loaded.provider.catalogue.items[:1])
    return ExplainQuery(
        RankQuery("", user, allow_fallback=False), ExplainParams(SamplingParams(max_tokens=32))
    )


def serving(*values: ServedRevision) -> Revisions[ServedRevision]:
    """Revisions from 1 up, the first one active."""
    revisions: Revisions[ServedRevision] = Revisions()
    for number, value in enumerate(values, start=1):
        revisions.add(number, value)
    revisions.direct(Traffic(1))
    return revisions


async def test_one_revision_from_the_score_to_the_last_word(parts: ServedParts) -> None:
    async with served_by(stubborn(parts)[0]) as served:
        revisions = serving(served, replace(served, ranker=Ranker(named(parts.loaded, "second"))))
        released: list[ServedRevision] = []
        pipeline = RankPipeline(revisions, feature_share=0.5)
        async with pipeline.explain(question(parts), time.monotonic() + 30) as told:
            texts = told.texts()
            await anext(texts)
            assert revisions.num_leases(1) == 1
            revisions.direct(Traffic(2))
            revisions.retire(1, released.append)
            assert [text async for text in texts]
            assert told.explanation.num_tokens == 32
            assert (told.revision, told.bundle_digest) == (1, "first")
        assert released == [served]


async def test_a_text_that_is_left_gives_back_its_lease_and_its_place(parts: ServedParts) -> None:
    async with served_by(stubborn(parts)[0]) as served:
        revisions = serving(served)
        pipeline = RankPipeline(revisions, feature_share=0.5)
        async with (
            pipeline.explain(question(parts), time.monotonic() + 30) as told,
            aclosing(told.texts()) as texts,
        ):
            await anext(texts)
        assert revisions.num_leases(1) == 0
        assert served.engine.num_waiting == 0


async def test_a_users_ranking_and_words_come_from_one_arm_of_a_canary(parts: ServedParts) -> None:
    async with served_by(stubborn(parts)[0]) as served:
        second = replace(served, ranker=Ranker(named(parts.loaded, "second")))
        revisions, found = serving(served, second), []
        revisions.direct(Traffic(1, canary=2, percent=50, salt="second"))
        pipeline = RankPipeline(revisions, feature_share=0.5)
        for user in ("ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"):
            item = parts.loaded.provider.catalogue.items[:1]
            query = RankQuery("", UserQuery(user, None, item), allow_fallback=False)
            ranked = await pipeline.rank(query, time.monotonic() + 30)
            asked = ExplainQuery(query, ExplainParams(SamplingParams(max_tokens=2)))
            async with pipeline.explain(asked, time.monotonic() + 30) as told:
                assert [text async for text in told.texts()]
            names = {1: "first", 2: "second"}
            assert told.revision == ranked.revision
            assert ranked.bundle_digest == told.bundle_digest == names[ranked.revision]
            found.append(ranked.revision)
        assert set(found) == {1, 2}


@pytest.mark.parametrize(
    ("user", "key"),
    [
        (UserQuery("ann", None), "ann"),
        (UserQuery(None, (Event("i-1", liked=True), Event("i-2", liked=True))), "i-1"),
        (UserQuery(None, ()), ""),
    ],
)
def test_a_canary_knows_users_by_what_stays(user: UserQuery, key: str) -> None:
    assert RankQuery("", user).user_key == key
