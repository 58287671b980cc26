"""From features to ranked items: router, prompt, model, order; with fallbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Mixture
from rankloom_engine import expert_bank
from rankloom_engine.errors import EngineFailedError, NonFiniteError
from rankloom_engine.pool import EngineHandle
from rankloom_engine.prompt import Past, Prompt, PromptCandidate, PromptEvent
from rankloom_engine.runner import EngineRunner
from rankloom_engine.sequence import RequestOptions, Scored
from rankloom_engine.weaver import Scores, Weaver
from rankloom_features.catalogue import Catalogue
from rankloom_features.provider import HistoryVersion, UserFeatures
from rankloom_features.ranker import TreeRanker
from rankloom_server import logs
from rankloom_server.answers import ExpertWeight, RankedItem, Ranking, Routing, Seen, Timing
from rankloom_server.fallback import FallbackReason, fallback_after
from rankloom_server.features import MAX_CANDIDATES_AT_ONCE, FeatureSource, FeatureSpace
from rankloom_server.parse import Fusion, RankQuery

# Of the time that is left, for a partial answer's own way: a busy machine is late by a part of it.
PARTIAL_RESERVE, PARTIAL_RESERVE_S = 0.1, 0.02
_FUSIONS = {
    Fusion.EXACT_SUM: expert_bank.Fusion.EXACT_SUM,
    Fusion.PEFT_LINEAR: expert_bank.Fusion.PEFT_LINEAR,
    Fusion.TOP1: expert_bank.Fusion.EXACT_SUM,  # of one expert
}


@dataclass(frozen=True, slots=True, eq=False)
class Woven:
    """What is made of a user's past alone, and kept as long as that is.

    ``routing``: what the mixture is told as, worked out when first asked for.
    """

    mixture: Mixture
    past: Past
    routing: Callable[[], Routing]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """All that one revision serves. ``popularity``: (items,) training rows of each item."""

    bundle_digest: str
    catalogue: Catalogue
    popularity: NDArray[np.float32]
    features: FeatureSource
    space: FeatureSpace
    trees: TreeRanker
    weaver: Weaver
    runner: EngineRunner | EngineHandle
    # Of this revision's router and tokens: `replace` starts anew.
    woven: WeakKeyDictionary[HistoryVersion, Woven] = field(
        init=False, default_factory=WeakKeyDictionary[HistoryVersion, Woven]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What the model needs, and what can be worked out while it runs: each when first asked for.

    ``order``: (candidates,) places in the request, in the order of the prompt's candidates.
    ``tree_logits``: (candidates,) the trees' logits in the order of the request.
    """

    mixture: Mixture
    weights: expert_bank.MixtureWeights
    prompt: Prompt
    order: NDArray[np.int64]
    tree_logits: Callable[[], NDArray[np.float64]]
    routing: Callable[[], Routing]
    prompt_s: float

    def work_out(self) -> None:
        """Leaves nothing to do but what needs the model's answer."""
        self.tree_logits()
        self.routing()


async def rank_with_features(
    served: Served,
    query: RankQuery,
    features: UserFeatures,
    fault: FallbackReason | None,
    deadline: float,
) -> Ranking:
    """Ranks by the model, or by the trees where it fails.

    ``fault`` is what is wrong with the user's vector, if anything; the rest of
    ``features`` is sound. Raises FallbackRefusedError, WorkExpiredError or
    EngineClosedError.
    """
    step = fallback_after(fault, allow_fallback=query.allow_fallback)
    prepared = await prepare(served, query, features, fault)
    try:
        scored, scores = await score_prepared(served, query, prepared, deadline)
    except EngineFailedError as error:
        logs.fault("engine_failed", error)
        step = fallback_after(FallbackReason.ENGINE_FAILED, allow_fallback=query.allow_fallback)
        items = _unscored(query, prepared.tree_logits())
        routing = Routing(cold_start=features.cold_start)
        seen = _seen(prepared, features, fault, None, non_finite=isinstance(error, NonFiniteError))
        return Ranking(step, routing, items, Timing(prompt_s=prepared.prompt_s), seen)
    timing = Timing(prompt_s=prepared.prompt_s, queue_s=scored.queue_s, model_s=scored.model_s)
    seen = _seen(prepared, features, fault, scores, reused=scored.reused)
    items = _ranked(query, scores, prepared.tree_logits())
    return Ranking(step, prepared.routing(), items, timing, seen)


def rank_by_popularity(served: Served, query: RankQuery) -> Ranking:
    """Ranks by training rows alone: nothing is known of the user. Raises FallbackRefusedError."""
    step = fallback_after(FallbackReason.FEATURES_UNAVAILABLE, allow_fallback=query.allow_fallback)
    places = [served.catalogue.index(item.item_id) for item in query.user.candidates]
    rows = np.array([served.popularity[place] if place >= 0 else 0.0 for place in places])
    return Ranking(step, Routing(), _unscored(query, rows), Timing())


def _seen(
    prepared: Prepared,
    features: UserFeatures,
    fault: FallbackReason | None,
    scores: Scores | None,
    *,
    non_finite: bool = False,
    reused: bool = False,
) -> Seen:
    if scores is None:
        none = np.full_like(prepared.tree_logits(), np.nan)
        scores = Scores(none, none)
    return Seen(
        prepared.tree_logits(),
        scores.score,
        scores.probability,
        None if fault or features.cold_start else features.vector,
        features.feature_version,
        non_finite,
        reused,
    )


async def prepare(
    served: Served, query: RankQuery, features: UserFeatures, fault: FallbackReason | None
) -> Prepared:
    """What the model needs. Long lists are prepared on a thread beside the event loop."""
    if len(query.user.candidates) <= MAX_CANDIDATES_AT_ONCE:
        return _prepare(served, query, features, fault)
    return await asyncio.to_thread(_prepare_whole, served, query, features, fault)


def _prepare_whole(
    served: Served, query: RankQuery, features: UserFeatures, fault: FallbackReason | None
) -> Prepared:
    prepared = _prepare(served, query, features, fault)
    prepared.work_out()
    return prepared


def _prepare(
    served: Served, query: RankQuery, features: UserFeatures, fault: FallbackReason | None
) -> Prepared:
    started = time.perf_counter()
    router = served.weaver.router
    vector = np.zeros(router.dim, dtype=np.float32) if fault else features.vector
    woven = _woven(served, features, fault)
    if query.fusion is Fusion.TOP1:
        woven = _woven_of(served, router.top1(woven.mixture), woven.past, features)
    tree_logits = cache(partial(served.trees.logits, features.tabular))
    order = _order(query, tree_logits)
    prompt = _prompt(served, query, woven.past, vector, features.tabular, order)
    return Prepared(
        mixture=woven.mixture,
        weights=expert_bank.MixtureWeights(woven.mixture.weights, _FUSIONS[query.fusion]),
        prompt=prompt,
        order=order,
        tree_logits=tree_logits,
        routing=woven.routing,
        prompt_s=time.perf_counter() - started,
    )


def _order(query: RankQuery, tree_logits: Callable[[], NDArray[np.float64]]) -> NDArray[np.int64]:
    """Where time may run short, the best tree logit first: then the likeliest have been scored."""
    if not query.allow_partial:
        return np.arange(len(query.user.candidates))
    return np.argsort(-tree_logits(), kind="stable")


def _woven(served: Served, features: UserFeatures, fault: FallbackReason | None) -> Woven:
    """The mixture and prefix of a user's past; what two threads make at once is equal."""
    if fault is None and features.past in served.woven:
        return served.woven[features.past]
    router, catalogue = served.weaver.router, served.catalogue
    mixture = (
        router.global_mixture() if fault or features.cold_start else router.route(features.vector)
    )
    events = [
        PromptEvent(catalogue.items[place], place, event.liked)
        for event in features.events
        if (place := catalogue.index(event.item_id)) >= 0
    ]
    woven = _woven_of(served, mixture, served.weaver.past(events), features)
    if fault is None:
        served.woven[features.past] = woven
    return woven


def _woven_of(served: Served, mixture: Mixture, past: Past, features: UserFeatures) -> Woven:
    routing = partial(
        _routing, served.weaver, mixture, past.num_events, cold_start=features.cold_start
    )
    return Woven(mixture, past, cache(routing))


def _prompt(
    served: Served,
    query: RankQuery,
    past: Past,
    vector: NDArray[np.float32],
    tabular: NDArray[np.float32],
    order: NDArray[np.int64],
) -> Prompt:
    catalogue = served.catalogue
    items = [query.user.candidates[place] for place in order]
    candidates = [
        PromptCandidate(catalogue.resolve(item), catalogue.index(item.item_id)) for item in items
    ]
    return served.weaver.prompt(past, vector, candidates, tabular[order])


async def score_prepared(
    served: Served, query: RankQuery, prepared: Prepared, deadline: float
) -> tuple[Scored, Scores]:
    """What the model says, and the scores in the order of the request.

    Raises WorkExpiredError, EngineFailedError or EngineClosedError.
    """
    options = options_of(query, deadline)
    with served.runner.submit(prepared.prompt, prepared.weights, options) as request:
        if await request.started():
            prepared.work_out()
        scored = await request.result()
    return scored, _finish(served.weaver, scored, prepared)


def options_of(query: RankQuery, deadline: float) -> RequestOptions:
    """A partial answer must leave in time to arrive."""
    if not query.allow_partial:
        return RequestOptions(deadline, query.caller)
    reserve_s = max(PARTIAL_RESERVE_S, PARTIAL_RESERVE * (deadline - time.monotonic()))
    return RequestOptions(deadline - reserve_s, query.caller, partial=True)


def _finish(weaver: Weaver, scored: Scored, prepared: Prepared) -> Scores:
    """Scores in the order of the request; NaN for what there was no time for."""
    margins = np.empty_like(scored.margins)
    margins[prepared.order] = scored.margins
    scores = weaver.finish(margins, prepared.tree_logits())
    done = ~np.isnan(margins)
    if not (np.isfinite(scores.score[done]).all() and np.isfinite(scores.probability[done]).all()):
        raise NonFiniteError("a score or probability is not finite")
    return scores


def _routing(weaver: Weaver, mixture: Mixture, num_events: int, *, cold_start: bool) -> Routing:
    """How the experts were woven. ``cold_start``: no event of the user's names a known item."""
    rows = zip(weaver.router.experts, weaver.expert_digests, mixture.weights.tolist(), strict=True)
    weights = tuple(ExpertWeight(*row) for row in rows if row[2] > 0.0)
    return Routing(
        mixture.route, weights, mixture.entropy, cold_start or mixture.cold_start, num_events
    )


def _ranked(
    query: RankQuery, scores: Scores, tree_logits: NDArray[np.float64]
) -> tuple[RankedItem, ...]:
    """What was scored by its score, and behind it the rest by the trees."""
    missing = np.isnan(scores.score)
    score = np.where(missing, tree_logits, scores.score)
    places = np.lexsort((-score, missing))[: query.top_k]
    probability = np.where(missing, 0.0, scores.probability)
    rows = zip(
        [query.user.candidates[place].item_id for place in places.tolist()],
        score[places].tolist(),
        probability[places].tolist(),
        (~missing[places]).tolist(),
        strict=True,
    )
    return tuple(RankedItem(*row) for row in rows)


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
