"""From features to ranked items: gate, prompt, model, order, on the best rung that holds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.gate import Gate, Mix
from rankloom_engine import mixture
from rankloom_engine.errors import EngineFailedError, NonFiniteError
from rankloom_engine.pool import Seat
from rankloom_engine.prompt import Prompt, PromptCandidate, PromptEvent
from rankloom_engine.runner import EngineRunner, Scored, Terms
from rankloom_engine.weaver import Scores, Weaver
from rankloom_features.catalogue import Catalogue
from rankloom_features.provider import UserFeatures
from rankloom_features.ranker import TreeRanker
from rankloom_server import logs
from rankloom_server.answers import ExpertWeight, RankedItem, Ranking, Seen, Timing, Weave
from rankloom_server.features import MAX_CANDIDATES_AT_ONCE, FeatureSource, FeatureSpace
from rankloom_server.ladder import RungReason, step_after
from rankloom_server.parse import RankQuery, Semantics

# Of the time that is left, for a partial answer's own way: a busy machine is late by a part of it.
PARTIAL_RESERVE, PARTIAL_RESERVE_S = 0.1, 0.02
_MIXED = {
    Semantics.EXACT_SUM: mixture.Semantics.EXACT_SUM,
    Semantics.PEFT_LINEAR: mixture.Semantics.PEFT_LINEAR,
    Semantics.TOP1: mixture.Semantics.EXACT_SUM,  # of one expert
}


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
    runner: EngineRunner | Seat


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What the model needs; ``prior``: (candidates,) the trees' logits.

    ``order``: (candidates,) places in the request, the best prior first: where time runs
    short, the likeliest have been scored.
    """

    mix: Mix
    weights: mixture.Weights
    prompt: Prompt
    prior: NDArray[np.float64]
    order: NDArray[np.int64]
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
    prepared = await prepare(served, query, features, fault)
    try:
        scored, scores = await score_prepared(served, query, prepared, deadline)
    except EngineFailedError as error:
        logs.fault("engine_failed", error)
        step = step_after(RungReason.ENGINE_FAILED, allow_degraded=query.allow_degraded)
        items = _unscored(query, prepared.prior)
        weave = Weave(cold=features.cold)
        seen = _seen(prepared, features, fault, None, non_finite=isinstance(error, NonFiniteError))
        return Ranking(step, weave, items, Timing(prompt_s=prepared.prompt_s), seen)
    weave = weave_of(served.weaver, prepared, cold=features.cold)
    timing = Timing(prompt_s=prepared.prompt_s, queue_s=scored.queue_s, model_s=scored.model_s)
    seen = _seen(prepared, features, fault, scores, reused=scored.reused)
    return Ranking(step, weave, _ranked(query, scores, prepared.prior), timing, seen)


def rank_by_popularity(served: Served, query: RankQuery) -> Ranking:
    """Ranks by training rows alone: nothing is known of the user. Raises DegradedRefusedError."""
    step = step_after(RungReason.FEATURES_UNAVAILABLE, allow_degraded=query.allow_degraded)
    places = [served.catalogue.index(item.item_id) for item in query.user.candidates]
    rows = np.array([served.popularity[place] if place >= 0 else 0.0 for place in places])
    return Ranking(step, Weave(), _unscored(query, rows), Timing())


def _seen(
    prepared: Prepared,
    features: UserFeatures,
    fault: RungReason | None,
    scores: Scores | None,
    *,
    non_finite: bool = False,
    reused: bool = False,
) -> Seen:
    none = np.full_like(prepared.prior, np.nan)
    return Seen(
        prepared.prior,
        none if scores is None else scores.score,
        none if scores is None else scores.probability,
        None if fault or features.cold else features.vector,
        features.epoch,
        non_finite,
        reused,
    )


async def prepare(
    served: Served, query: RankQuery, features: UserFeatures, fault: RungReason | None
) -> Prepared:
    """What the model needs. Long lists are prepared on a thread beside the event loop."""
    if len(query.user.candidates) <= MAX_CANDIDATES_AT_ONCE:
        return _prepare(served, query, features, fault)
    return await asyncio.to_thread(_prepare, served, query, features, fault)


def _prepare(
    served: Served, query: RankQuery, features: UserFeatures, fault: RungReason | None
) -> Prepared:
    started = time.perf_counter()
    gate, catalogue = served.weaver.gate, served.catalogue
    vector = np.zeros(gate.dim, dtype=np.float32) if fault else features.vector
    prior = served.trees.logits(features.tabular)
    order = np.argsort(-prior, kind="stable")
    candidates = [query.user.candidates[place] for place in order]
    prompt = served.weaver.prompt(
        vector,
        [
            PromptEvent(catalogue.items[place], place, event.liked)
            for event in features.events
            if (place := catalogue.index(event.item_id)) >= 0
        ],
        [PromptCandidate(catalogue.resolve(c), catalogue.index(c.item_id)) for c in candidates],
        features.tabular[order],
    )
    mix = _mix(gate, vector, query.semantics, known=not (fault or features.cold))
    weights = mixture.Weights(mix.weights, _MIXED[query.semantics])
    return Prepared(mix, weights, prompt, prior, order, time.perf_counter() - started)


async def score_prepared(
    served: Served, query: RankQuery, prepared: Prepared, deadline: float
) -> tuple[Scored, Scores]:
    """What the model says, and the scores in the order of the request.

    Raises WorkExpiredError, EngineFailedError or EngineClosedError.
    """
    terms = terms_of(query, deadline)
    scored = await served.runner.score(prepared.prompt, prepared.weights, terms)
    return scored, _finish(served.weaver, scored, prepared)


def terms_of(query: RankQuery, deadline: float) -> Terms:
    """A partial answer must leave in time to arrive."""
    if not query.allow_partial:
        return Terms(deadline, query.caller)
    reserve_s = max(PARTIAL_RESERVE_S, PARTIAL_RESERVE * (deadline - time.monotonic()))
    return Terms(deadline - reserve_s, query.caller, partial=True)


def _mix(gate: Gate, vector: NDArray[np.float32], semantics: Semantics, *, known: bool) -> Mix:
    if not known:
        return gate.global_mix()
    mix = gate.mix(vector)
    return gate.top1(mix) if semantics is Semantics.TOP1 else mix


def _finish(weaver: Weaver, scored: Scored, prepared: Prepared) -> Scores:
    """Scores in the order of the request; NaN for what there was no time for."""
    margins = np.empty_like(scored.margins)
    margins[prepared.order] = scored.margins
    scores = weaver.finish(margins, prepared.prior)
    done = ~np.isnan(margins)
    if not (np.isfinite(scores.score[done]).all() and np.isfinite(scores.probability[done]).all()):
        raise NonFiniteError("a score or probability is not finite")
    return scores


def weave_of(weaver: Weaver, prepared: Prepared, *, cold: bool) -> Weave:
    """How the experts were woven. ``cold``: no event of the user's names a known item."""
    mix = prepared.mix
    rows = zip(weaver.gate.experts, weaver.expert_digests, mix.weights.tolist(), strict=True)
    weights = tuple(ExpertWeight(*row) for row in rows if row[2] > 0.0)
    return Weave(mix.route, weights, mix.entropy, cold or mix.cold, prepared.prompt.num_events)


def _ranked(query: RankQuery, scores: Scores, prior: NDArray[np.float64]) -> tuple[RankedItem, ...]:
    """What was scored by its score, and behind it the rest by the trees."""
    missing = np.isnan(scores.score)
    score = np.where(missing, prior, scores.score)
    places = np.lexsort((-score, missing))[: query.top_k]
    return tuple(
        RankedItem(
            query.user.candidates[place].item_id,
            float(score[place]),
            0.0 if missing[place] else float(scores.probability[place]),
            scored=not missing[place],
        )
        for place in places
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
