"""Rank over the wire, on a real bundle, with nothing broken."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rankloom_features.provider import UserQuery
from rankloom_features.wire import query_to_wire
from rankloom_proto.v1 import ranking_pb2
from rankloom_proto.v1.features_pb2 import Candidate, History, ItemText
from server.rankings import (
    candidates,
    item_ids,
    known_user,
    order,
    rank,
    ranking_channel,
    request,
    scores,
    with_options,
)
from server.served_parts import ServedParts
from server.servers import failure_of


@pytest.fixture
async def channel(parts: ServedParts) -> AsyncIterator[grpc.aio.Channel]:
    async with ranking_channel(parts) as channel:
        yield channel


async def test_the_answer_is_whole(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    answer = await rank(channel, request(parts, request_id="r-1"))
    assert answer.request_id == "r-1"
    assert answer.revision.number == 1
    assert answer.revision.bundle_digest == parts.loaded.bundle.digest
    assert (answer.fallback_level, answer.fallback_reason) == (
        ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE,
        0,
    )
    assert sorted(order(answer)) == sorted(item_ids(parts, 5))
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    assert [item.score for item in answer.items] == sorted(scores(answer).values(), reverse=True)
    assert all(item.scored and 0 < item.probability < 1 for item in answer.items)


async def test_the_weave_is_told(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    routing = (await rank(channel, request(parts))).routing
    router = parts.loaded.router
    mixture = router.route(
        parts.loaded.provider.features(UserQuery(known_user(parts), None)).vector
    )
    assert ranking_pb2.Route.Name(routing.route) == f"ROUTE_{mixture.route.name}"
    digests = dict(zip(router.experts, parts.loaded.expert_digests, strict=True))
    expected = {
        name: pytest.approx(weight)
        for name, weight in zip(router.experts, mixture.weights.tolist(), strict=True)
        if weight
    }
    assert {each.expert: each.weight for each in routing.weights} == expected
    assert all(each.digest == digests[each.expert] for each in routing.weights)
    assert math.isclose(routing.entropy, mixture.entropy)
    assert routing.history_events > 0
    assert not routing.cold_start


async def test_the_stages_are_timed(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    timing = (await rank(channel, request(parts))).timing
    stages = (timing.features, timing.prompt, timing.queue, timing.model)
    nanos = [stage.ToNanoseconds() for stage in stages]
    assert min(nanos) > 0
    assert sum(nanos) <= timing.total.ToNanoseconds() * 1.1


@pytest.mark.parametrize("fields", [{"user_id": "nobody"}, {"history": History()}])
async def test_a_new_user_is_cold_but_not_degraded(
    fields: dict[str, object], channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    answer = await rank(channel, request(parts, **fields))
    assert answer.fallback_level == ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE
    assert (answer.routing.route, answer.routing.cold_start) == (ranking_pb2.ROUTE_GLOBAL, True)
    assert [(each.expert, each.weight) for each in answer.routing.weights] == [("global", 1.0)]
    assert answer.routing.history_events == 0


async def test_a_history_says_what_the_user_id_says(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    events = parts.loaded.provider.features(UserQuery(known_user(parts), None)).events
    history = query_to_wire(UserQuery(None, events)).history
    by_id = await rank(channel, request(parts))
    by_history = await rank(channel, request(parts, history=history))
    assert scores(by_history) == pytest.approx(scores(by_id), abs=1e-4)
    assert by_history.routing == by_id.routing


async def test_an_item_that_the_catalogue_lacks_is_scored_by_its_text(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    new = Candidate(item_id="new", text=ItemText(title="A New One", year=1999))
    answer = await rank(channel, request(parts, candidates=[*candidates(item_ids(parts, 2)), new]))
    (item,) = (item for item in answer.items if item.item_id == "new")
    assert item.scored
    assert math.isfinite(item.score)


async def test_the_catalogues_own_text_wins(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    (known,) = item_ids(parts, 1)
    other = Candidate(item_id=known, text=ItemText(title="Other", year=1, description="words"))
    plain = await rank(channel, request(parts, 1))
    assert scores(await rank(channel, request(parts, candidates=[other]))) == pytest.approx(
        scores(plain), abs=1e-5
    )


async def test_top_k_cuts_after_ranking(channel: grpc.aio.Channel, parts: ServedParts) -> None:
    whole = await rank(channel, request(parts))
    best = await rank(channel, with_options(parts, top_k=2))
    assert order(best) == order(whole)[:2]


async def test_top1_uses_the_largest_expert_alone(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    router = parts.loaded.router
    vector = parts.loaded.provider.features(UserQuery(known_user(parts), None)).vector
    largest = router.experts[int(router.route(vector).weights.argmax())]
    message = with_options(parts, fusion=ranking_pb2.FUSION_TOP1)
    answer = await rank(channel, message)
    assert [(each.expert, each.weight) for each in answer.routing.weights] == [(largest, 1.0)]
    assert answer.fallback_level == ranking_pb2.FALLBACK_LEVEL_EXACT_MIXTURE


async def test_a_score_does_not_depend_on_the_others(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    together = scores(await rank(channel, request(parts, 40)))
    reverse = request(parts, candidates=candidates(item_ids(parts, 40)[::-1]))
    alone = [request(parts, candidates=candidates([item])) for item in item_ids(parts, 3)]
    assert scores(await rank(channel, reverse)) == pytest.approx(together, abs=1e-4)
    for answer in await asyncio.gather(*(rank(channel, message) for message in alone)):
        ((item_id, score),) = scores(answer).items()
        assert score == pytest.approx(together[item_id], abs=1e-4)


async def test_users_at_the_same_time_get_their_own_scores(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    messages = [request(parts), request(parts, user_id="nobody"), request(parts, 3)]
    alone = [scores(await rank(channel, message)) for message in messages]
    together = await asyncio.gather(*(rank(channel, message) for message in messages * 5))
    for answer, expected in zip(together, alone * 5, strict=True):
        assert scores(answer) == pytest.approx(expected, abs=1e-4)


async def test_the_serving_revision_can_be_pinned(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    assert (await rank(channel, with_options(parts, revision=1))).revision.number == 1
    for other in (0, 2):
        failure = await failure_of(rank(channel, with_options(parts, revision=other)))
        assert failure.code is grpc.StatusCode.NOT_FOUND
        assert failure.reason == "REVISION_UNKNOWN"


async def test_health_stays_quick_while_scoring_runs(
    channel: grpc.aio.Channel, parts: ServedParts
) -> None:
    size = min(200, len(parts.loaded.provider.catalogue))
    scoring = [asyncio.create_task(rank(channel, request(parts, size))) for _ in range(4)]
    health, longest = health_pb2_grpc.HealthStub(channel), 0.0
    num_checks, began = 0, time.perf_counter()
    while not all(task.done() for task in scoring):
        started = time.perf_counter()
        await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        longest = max(longest, time.perf_counter() - started)
        num_checks += 1
        await asyncio.sleep(0.01)
    await asyncio.gather(*scoring)
    assert num_checks > 1
    assert longest < (time.perf_counter() - began) / 2
