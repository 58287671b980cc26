"""From features to ranked items: gate, prompt, model, order, on the best rung that holds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.gate import Gate, Mix
from rankloom_engine.errors import EngineFailedError
from rankloom_engine.prompt import Prompt, PromptCandidate, PromptEvent
from rankloom_engine.runner import EngineRunner, Scored
from rankloom_engine.weaver import Scores, Weaver
from rankloom_features.catalogue import Catalogue
from rankloom_features.provider import UserFeatures
from rankloom_features.ranker import TreeRanker
from rankloom_server import logs
from rankloom_server.answers import ExpertWeight, RankedItem, Ranking, Timing, Weave
from rankloom_server.features import FeatureSource, FeatureSpace
from rankloom_server.ladder import RungReason, step_after
from rankloom_server.parse import RankQuery, Semantics


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """All that one generation serves. ``popularity``: (items,) training rows of each item."""

    bundle_digest: str
    catalogue: Catalogue
    popularity: NDArray[np.float32]
    features: FeatureSource
    space: FeatureSpace
    trees: TreeRanker
    weaver: Weaver
    runner: EngineRunner


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """What the model needs; ``prior``: (candidates,) the trees' logits."""

    mix: Mix
    prompt: Prompt
    prior: NDArray[np.float64]
    prompt_s: float


async def rank_with_features(
    served: Served,
    query: RankQuery,
    features: UserFeatures,
    fault: RungReason | None,
    deadline: float,
) -> Ranking:
    """Ranks by the model, or by the trees where it fails.

    ``fault`` is what is wrong with the user's vector, if anything; the rest of
    ``features`` is sound. Raises DegradedRefusedError, WorkExpiredError or
    EngineClosedError.
    """
    step = step_after(fault, allow_degraded=query.allow_degraded)
    prepared = await asyncio.to_thread(_prepare, served, query, features, fault)
    try:
        scored = await served.runner.score(prepared.prompt, prepared.mix.weights, deadline)
        scores = _finish(served.weaver, scored, prepared.prior)
    except EngineFailedError as error:
        logs.fault("engine_failed", error)
        step = step_after(RungReason.ENGINE_FAILED, allow_degraded=query.allow_degraded)
        items = _unscored(query, prepared.prior)
        weave = Weave(cold=features.cold)
        return Ranking(step, weave, items, Timing(prompt_s=prepared.prompt_s))
    weave = _weave(served.weaver, prepared, cold=features.cold)
    timing = Timing(prompt_s=prepared.prompt_s, queue_s=scored.queue_s, model_s=scored.model_s)
    return Ranking(step, weave, _ranked(query, scores), timing)


def rank_by_popularity(served: Served, query: RankQuery) -> Ranking:
    """Ranks by training rows alone: nothing is known of the user. Raises DegradedRefusedError."""
    step = step_after(RungReason.FEATURES_UNAVAILABLE, allow_degraded=query.allow_degraded)
    places = [served.catalogue.index(item.item_id) for item in query.user.candidates]
    rows = np.array([served.popularity[place] if place >= 0 else 0.0 for place in places])
    return Ranking(step, Weave(), _unscored(query, rows), Timing())


def _prepare(
    served: Served, query: RankQuery, features: UserFeatures, fault: RungReason | None
) -> _Prepared:
    """Milliseconds of work: it runs on a thread beside the event loop."""
    started = time.perf_counter()
    gate, catalogue = served.weaver.gate, served.catalogue
    vector = np.zeros(gate.dim, dtype=np.float32) if fault else features.vector
    candidates = query.user.candidates
    prompt = served.weaver.prompt(
        vector,
        [
            PromptEvent(catalogue.items[place], place, event.liked)
            for event in features.events
            if (place := catalogue.index(event.item_id)) >= 0
        ],
        [PromptCandidate(catalogue.resolve(c), catalogue.index(c.item_id)) for c in candidates],
        features.tabular,
    )
    prior = served.trees.logits(features.tabular)
    mix = _mix(gate, vector, query.semantics, known=not (fault or features.cold))
    return _Prepared(mix, prompt, prior, time.perf_counter() - started)


def _mix(gate: Gate, vector: NDArray[np.float32], semantics: Semantics, *, known: bool) -> Mix:
    if not known:
        return gate.global_mix()
    mix = gate.mix(vector)
    return gate.top1(mix) if semantics is Semantics.TOP1 else mix


def _finish(weaver: Weaver, scored: Scored, prior: NDArray[np.float64]) -> Scores:
    scores = weaver.finish(scored.margins, prior)
    if not (np.isfinite(scores.score).all() and np.isfinite(scores.probability).all()):
        raise EngineFailedError("a score or probability is not finite")
    return scores


def _weave(weaver: Weaver, prepared: _Prepared, *, cold: bool) -> Weave:
    mix = prepared.mix
    rows = zip(weaver.gate.experts, weaver.expert_digests, mix.weights.tolist(), strict=True)
    weights = tuple(ExpertWeight(*row) for row in rows if row[2] > 0.0)
    return Weave(mix.route, weights, mix.entropy, cold or mix.cold, prepared.prompt.num_events)


def _ranked(query: RankQuery, scores: Scores) -> tuple[RankedItem, ...]:
    return tuple(
        RankedItem(
            query.user.candidates[place].item_id,
            float(scores.score[place]),
            float(scores.probability[place]),
            scored=True,
        )
        for place in _best(scores.score, query.top_k)
    )


def _unscored(query: RankQuery, values: NDArray[np.float64]) -> tuple[RankedItem, ...]:
    candidates = query.user.candidates
    return tuple(
        RankedItem(candidates[place].item_id, float(values[place]), 0.0, scored=False)
        for place in _best(values, query.top_k)
    )


def _best(values: NDArray[np.float64], top_k: int | None) -> list[int]:
    """Places by value, best first; equal ones in the order of the request."""
    if not np.isfinite(values).all():
        raise ArithmeticError("an order by numbers that are not finite is none")
    places: list[int] = np.argsort(-values, kind="stable")[:top_k].tolist()
    return places
