"""What is kept of a user's past answers for nothing but that past, soundly, in its revision."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from rankloom_adapters.router import Route, Router
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_server.app import Parts
from rankloom_server.fallback import FallbackReason
from rankloom_server.parse import Fusion, RankQuery
from rankloom_server.scoring import Prepared, Served, prepare
from server.rankings import known_user, served_of


@pytest.fixture
def served(parts: Parts) -> Served:
    return served_of(parts)


async def prepared(
    served: Served,
    parts: Parts,
    fault: FallbackReason | None = None,
    history: tuple[Event, ...] | None = None,
    fusion: Fusion = Fusion.EXACT_SUM,
) -> Prepared:
    provider = parts.own.provider
    user = None if history is not None else known_user(parts)
    asked = UserQuery(user, history, provider.catalogue.items[:3])
    query = RankQuery("", asked, fusion=fusion)
    return await prepare(served, query, provider.features(query.user), fault)


async def test_a_users_next_call_finds_the_first_ones(served: Served, parts: Parts) -> None:
    first, next_one = [await prepared(served, parts) for _ in range(2)]
    assert next_one.mixture is first.mixture
    assert next_one.prompt.prefix is first.prompt.prefix
    assert next_one.routing() is first.routing()
    assert len(served.woven) == 1


@pytest.mark.parametrize(
    "fault", [FallbackReason.VECTOR_INVALID, FallbackReason.FEATURE_VERSION_MISMATCH]
)
async def test_a_bad_vector_neither_finds_nor_leaves_a_mix(
    fault: FallbackReason, served: Served, parts: Parts
) -> None:
    bad = await prepared(served, parts, fault)
    assert np.array_equal(bad.mixture.weights, served.weaver.router.global_mixture().weights)
    assert not served.woven
    sound = await prepared(served, parts)
    assert sound.routing().route is not bad.routing().route
    again = await prepared(served, parts, fault)
    assert again.routing().route is bad.routing().route


async def test_one_expert_alone_is_not_told_as_the_whole_mix(served: Served, parts: Parts) -> None:
    mixing = replace(served, weaver=replace(served.weaver, router=router_that_fuses(served, parts)))
    whole, alone, again = [
        await prepared(mixing, parts, fusion=each)
        for each in (Fusion.EXACT_SUM, Fusion.TOP1, Fusion.EXACT_SUM)
    ]
    assert len(whole.routing().weights) > 1
    assert [each.weight for each in alone.routing().weights] == [1.0]
    assert again.routing() is whole.routing()


def router_that_fuses(served: Served, parts: Parts) -> Router:
    router, provider = served.weaver.router, parts.own.provider
    vector = provider.features(UserQuery(known_user(parts), None)).vector
    warmer = [replace(router, temperature=router.temperature * 2**power) for power in range(1, 10)]
    return next(each for each in warmer if each.route(vector).route is Route.FUSED)


async def test_another_past_has_its_own(served: Served, parts: Parts) -> None:
    known = await prepared(served, parts)
    events = parts.own.provider.log.events_of(known_user(parts))
    inline = await prepared(served, parts, history=events[:1])
    assert inline.prompt.num_events == 1 != known.prompt.num_events
    vector = parts.own.provider.features(UserQuery(None, events[:1])).vector
    assert (
        inline.mixture.entropy
        == served.weaver.router.route(vector).entropy
        != known.mixture.entropy
    )


async def test_a_past_that_is_over_leaves_nothing(served: Served, parts: Parts) -> None:
    events = parts.own.provider.log.events_of(known_user(parts))
    await prepared(served, parts, history=events[:2])
    gc.collect()
    assert not served.woven


async def test_another_revision_has_its_own(served: Served, parts: Parts) -> None:
    first = await prepared(served, parts)
    router = served.weaver.router
    flat = replace(served.weaver, router=replace(router, temperature=router.temperature * 10))
    second = replace(served, weaver=flat)
    assert not second.woven
    assert (await prepared(second, parts)).mixture.entropy > first.mixture.entropy
