"""Groups whose experts are equal files: one expert, with all of their weight."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_adapters.bundle import ROUTER, expert_part, open_bundle, seal
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.router import GLOBAL, Fusion, RouteThresholds
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.loading import Hardware
from rankloom_engine.model import ForwardInput, ForwardOutput
from rankloom_engine.pool import EngineHandle, EnginePool
from rankloom_engine.runner import EngineLimits
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_ranker.evidence import ScoredQuery, evidence_of
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker
from rankloom_ranker.ranking import prepare, score
from server.served_parts import ServedParts, load_parts
from server.test_evidence import events_of

NUM_EVENTS = 8


def with_equal_experts(parts: ServedParts, out: Path, num: int, *, spaced: bool) -> ServedParts:
    """The first ``num`` groups have the global expert; every user is fused.

    ``spaced``: their files differ in a space, so that no two are known to be equal.
    """
    bundle, router = parts.loaded.bundle, parts.loaded.router
    shutil.copytree(bundle.folder, out)
    for number, name in enumerate(router.groups[:num], 1):
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            shutil.copyfile(out / expert_part(GLOBAL, file), out / expert_part(name, file))
        if spaced:
            config = out / expert_part(name, CONFIG_FILE)
            config.write_text(config.read_text() + " " * number)
    warm = replace(router, temperature=1.5, fitted_thresholds=RouteThresholds(1.0, 1.0))
    (out / ROUTER).write_bytes(warm.to_bytes())
    seal(out, open_bundle(bundle.folder).metadata)
    return load_parts(out)


def copies(parts: ServedParts, tmp_path: Path, num: int) -> list[ServedParts]:
    """The bundle with equal experts, and with experts that are told apart."""
    return [
        with_equal_experts(parts, tmp_path / str(spaced), num, spaced=spaced)
        for spaced in (False, True)
    ]


async def admitted(parts: ServedParts) -> tuple[EnginePool, EngineHandle]:
    pool = EnginePool(Hardware(), EngineLimits(), 0, load=lambda *_: parts.decoder)
    return pool, await pool.admit(parts.loaded.engine_parts())


def users(parts: ServedParts) -> list[UserQuery]:
    items = parts.loaded.catalogue.items[:3]
    return [UserQuery(None, events_of(parts, NUM_EVENTS, seed), items) for seed in range(4)]


async def all_scores(
    parts: ServedParts, weights: Sequence[float], fusion: Fusion
) -> list[NDArray[np.float64]]:
    pool, engine = await admitted(parts)
    ranker, mixture = Ranker(parts.loaded), MixtureWeights(np.array(weights, np.float32), fusion)
    found = []
    for user in users(parts):
        query = RankQuery("", user)
        job = await prepare(ranker, query, parts.loaded.provider.features(user), None)
        job = replace(job, weights=mixture)
        found.append((await score(ranker, engine, query, job, math.inf)).scores.score)
    await pool.close()
    return found


@pytest.mark.parametrize("fusion", [Fusion.EXACT_SUM, Fusion.PEFT_LINEAR])
@pytest.mark.parametrize("num", [1, 2])
async def test_scores_are_those_of_experts_that_are_told_apart(
    fusion: Fusion, num: int, parts: ServedParts, tmp_path: Path
) -> None:
    """One group, or both, have the global expert."""
    weights = (0.3, 0.5, 0.2)
    one, other = [await all_scores(each, weights, fusion) for each in copies(parts, tmp_path, num)]
    np.testing.assert_allclose(one, other, atol=1e-5)
    if num == 1:
        alone = await all_scores(parts, (0.0, 0.0, 1.0), fusion)
        assert np.abs(np.array(one) - alone).max() > 1e-3, "the other group's expert has its part"


async def test_an_expert_of_all_groups_is_one_slot_and_one_mixture(
    parts: ServedParts, tmp_path: Path
) -> None:
    num = len(parts.loaded.router.groups)
    equal, apart = copies(parts, tmp_path, num)
    pool, engine = await admitted(equal)
    weights = np.random.default_rng(0).dirichlet(np.ones(num + 1), 50).astype(np.float32)
    found = {engine.over_slots(MixtureWeights(row)).values.tobytes() for row in weights}
    assert len(set(engine.slots.tolist())) == len(found) == 1
    assert len(engine.ranks) == num + 1
    await pool.close()
    pool, engine = await admitted(apart)
    assert len(set(engine.slots.tolist())) == num + 1
    await pool.close()


@pytest.mark.parametrize(("num_candidates", "share"), [(1, 0.75), (3, 1.0)])
async def test_the_evidence_of_a_fused_user_reads_what_variants_share_once(
    num_candidates: int, share: float, parts: ServedParts, tmp_path: Path
) -> None:
    """Equal mixtures share keys and values, though each variant has weights of its own.

    What follows the missing event is read for each candidate then, so that with several of them
    it may be cheaper to share nothing.
    """
    tokens, influences = list[int](), list[list[float]]()
    for own in copies(parts, tmp_path, len(parts.loaded.router.groups)):
        pool, engine = await admitted(own)
        found, num = await evidence(own, engine, num_candidates)
        tokens.append(num)
        influences.append(found)
        await pool.close()
    assert influences[0] == pytest.approx(influences[1], abs=1e-5)
    assert max(map(abs, influences[0])) > 1e-3
    assert tokens[0] <= share * tokens[1]


async def evidence(
    parts: ServedParts, engine: EngineHandle, num_candidates: int
) -> tuple[list[float], int]:
    """Influences of one user's events, and how many tokens were read for them."""
    ranker, provider, user = Ranker(parts.loaded), parts.loaded.provider, users(parts)[0]

    async def ablations(query: UserQuery) -> tuple[UserFeatures, ...]:
        return provider.features(query).ablated

    user = replace(user, candidates=user.candidates[:num_candidates])
    query, features = RankQuery("", user), provider.features(user)
    job = await prepare(ranker, query, features, None)
    scores = (await score(ranker, engine, query, job, math.inf)).scores
    forward, read = parts.decoder.forward, list[int]()

    def reading(inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        read.extend(len(each.row()) for each in inputs)
        return forward(inputs)

    parts.decoder.forward = reading  # type: ignore[method-assign]
    scored = ScoredQuery(query, features, job, scores)
    found = await evidence_of(ranker, engine, scored, ablations, None, math.inf)
    return [each.influence for each in found[0]], sum(read)
