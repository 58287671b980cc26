"""What is kept of a user's past answers for nothing but that past, soundly, in its generation."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from rankloom_adapters.gate import Gate, Route
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_server.app import Parts
from rankloom_server.ladder import RungReason
from rankloom_server.parse import RankQuery, Semantics
from rankloom_server.scoring import Prepared, Served, prepare
from server.rankings import known_user, served_of


@pytest.fixture
def served(parts: Parts) -> Served:
    return served_of(parts)


async def prepared(
    served: Served,
    parts: Parts,
    fault: RungReason | None = None,
    history: tuple[Event, ...] | None = None,
    semantics: Semantics = Semantics.EXACT_SUM,
) -> Prepared:
    provider = parts.own.provider
    user = None if history is not None else known_user(parts)
    asked = UserQuery(user, history, provider.catalogue.items[:3])
    query = RankQuery("", asked, semantics=semantics)
    return await prepare(served, query, provider.features(query.user), fault)


async def test_a_users_next_call_finds_the_first_ones(served: Served, parts: Parts) -> None:
    first, next_one = [await prepared(served, parts) for _ in range(2)]
    assert next_one.mix is first.mix
    assert next_one.prompt.prefix is first.prompt.prefix
    assert next_one.weave() is first.weave()
    assert len(served.woven) == 1


@pytest.mark.parametrize("fault", [RungReason.VECTOR_INVALID, RungReason.EPOCH_MISMATCH])
async def test_a_bad_vector_neither_finds_nor_leaves_a_mix(
    fault: RungReason, served: Served, parts: Parts
) -> None:
    bad = await prepared(served, parts, fault)
    assert np.array_equal(bad.mix.weights, served.weaver.gate.global_mix().weights)
    assert not served.woven
    sound = await prepared(served, parts)
    assert sound.weave().route is not bad.weave().route
    again = await prepared(served, parts, fault)
    assert again.weave().route is bad.weave().route


async def test_one_expert_alone_is_not_told_as_the_whole_mix(served: Served, parts: Parts) -> None:
    mixing = replace(served, weaver=replace(served.weaver, gate=gate_that_mixes(served, parts)))
    whole, alone, again = [
        await prepared(mixing, parts, semantics=each)
        for each in (Semantics.EXACT_SUM, Semantics.TOP1, Semantics.EXACT_SUM)
    ]
    assert len(whole.weave().weights) > 1
    assert [each.weight for each in alone.weave().weights] == [1.0]
    assert again.weave() is whole.weave()


def gate_that_mixes(served: Served, parts: Parts) -> Gate:
    gate, provider = served.weaver.gate, parts.own.provider
    vector = provider.features(UserQuery(known_user(parts), None)).vector
    warmer = [replace(gate, temperature=gate.temperature * 2**power) for power in range(1, 10)]
    return next(each for each in warmer if each.mix(vector).route is Route.FUSED)


async def test_another_past_has_its_own(served: Served, parts: Parts) -> None:
    known = await prepared(served, parts)
    events = parts.own.provider.log.events_of(known_user(parts))
    inline = await prepared(served, parts, history=events[:1])
    assert inline.prompt.num_events == 1 != known.prompt.num_events
    vector = parts.own.provider.features(UserQuery(None, events[:1])).vector
    assert inline.mix.entropy == served.weaver.gate.mix(vector).entropy != known.mix.entropy


async def test_a_past_that_is_over_leaves_nothing(served: Served, parts: Parts) -> None:
    events = parts.own.provider.log.events_of(known_user(parts))
    await prepared(served, parts, history=events[:2])
    gc.collect()
    assert not served.woven


async def test_another_generation_has_its_own(served: Served, parts: Parts) -> None:
    first = await prepared(served, parts)
    gate = served.weaver.gate
    flat = replace(served.weaver, gate=replace(gate, temperature=gate.temperature * 10))
    second = replace(served, weaver=flat)
    assert not second.woven
    assert (await prepared(second, parts)).mix.entropy > first.mix.entropy
