"""What is cached of a user's history answers for that history alone, in its own revision."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from rankloom_adapters.router import Fusion, Route, Router
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_ranker.fallback import FallbackReason
from rankloom_ranker.loaded import LoadedBundle
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker, RankingJob


@pytest.fixture
def ranker(loaded: LoadedBundle) -> Ranker:
    return Ranker(loaded)


def known_user(loaded: LoadedBundle) -> str:
    return next(loaded.provider.events.users())


def prepared(
    ranker: Ranker,
    fault: FallbackReason | None = None,
    history: tuple[Event, ...] | None = None,
    fusion: Fusion = Fusion.EXACT_SUM,
) -> RankingJob:
    loaded = ranker.loaded
    user = None if history is not None else known_user(loaded)
    asked = UserQuery(user, history, loaded.catalogue.items[:3])
    query = RankQuery("", asked, fusion=fusion)
    return ranker.prepare(query, loaded.provider.features(query.user), fault)


def test_a_users_next_request_finds_the_context_of_the_first(ranker: Ranker) -> None:
    first, next_one = [prepared(ranker) for _ in range(2)]
    assert next_one.mixture is first.mixture
    assert next_one.prompt.prefix is first.prompt.prefix
    assert next_one.routing() is first.routing()
    assert ranker.num_contexts == 1


@pytest.mark.parametrize(
    "fault", [FallbackReason.VECTOR_INVALID, FallbackReason.FEATURE_VERSION_MISMATCH]
)
def test_a_bad_vector_neither_finds_nor_leaves_a_mixture(
    fault: FallbackReason, ranker: Ranker
) -> None:
    bad = prepared(ranker, fault)
    assert np.array_equal(bad.mixture.weights, ranker.loaded.router.global_mixture().weights)
    assert not ranker.num_contexts
    sound = prepared(ranker)
    assert sound.routing().route is not bad.routing().route
    again = prepared(ranker, fault)
    assert again.routing().route is bad.routing().route


def test_one_expert_alone_is_not_reported_as_the_whole_mixture(loaded: LoadedBundle) -> None:
    ranker = Ranker(replace(loaded, router=router_that_fuses(loaded)))
    whole, alone, again = [
        prepared(ranker, fusion=each) for each in (Fusion.EXACT_SUM, Fusion.TOP1, Fusion.EXACT_SUM)
    ]
    assert len(whole.routing().weights) > 1
    assert [each.weight for each in alone.routing().weights] == [1.0]
    assert again.routing() is whole.routing()


def router_that_fuses(loaded: LoadedBundle) -> Router:
    router = loaded.router
    vector = loaded.provider.features(UserQuery(known_user(loaded), None)).vector
    warmer = [replace(router, temperature=router.temperature * 2**power) for power in range(1, 10)]
    return next(each for each in warmer if each.route(vector).route is Route.FUSED)


def test_another_history_has_its_own_context(ranker: Ranker) -> None:
    provider = ranker.loaded.provider
    known = prepared(ranker)
    events = provider.events.history(known_user(ranker.loaded)).events
    inline = prepared(ranker, history=events[:1])
    assert inline.prompt.num_events == 1 != known.prompt.num_events
    vector = provider.features(UserQuery(None, events[:1])).vector
    expected = ranker.loaded.router.route(vector).entropy
    assert inline.mixture.entropy == expected != known.mixture.entropy


def test_the_context_goes_with_its_history(ranker: Ranker) -> None:
    events = ranker.loaded.provider.events.history(known_user(ranker.loaded)).events
    prepared(ranker, history=events[:2])
    gc.collect()
    assert not ranker.num_contexts


def test_another_revision_has_its_own_context(ranker: Ranker) -> None:
    first, router = prepared(ranker), ranker.loaded.router
    flat = replace(router, temperature=router.temperature * 10)
    second = Ranker(replace(ranker.loaded, router=flat))
    assert not second.num_contexts
    assert prepared(second).mixture.entropy > first.mixture.entropy
