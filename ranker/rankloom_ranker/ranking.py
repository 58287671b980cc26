"""From features to ranked items on a running engine, with fallbacks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.errors import EngineFailedError
from rankloom_engine.pool import EngineHandle
from rankloom_engine.sequence import RequestOptions
from rankloom_features.provider import MAX_CANDIDATES_ON_LOOP, UserFeatures, has_few_events
from rankloom_ranker.answers import RankedItem, Ranking, Routing, Scores, ScoringRecord, Timing
from rankloom_ranker.errors import FallbackRefusedError
from rankloom_ranker.fallback import FallbackReason, fallback_after
from rankloom_ranker.loaded import LoadedBundle
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker, RankingJob

MAX_CHARS_ON_LOOP = 8_000  # of all candidates' own texts
# Of the time left, kept for a partial answer's own way: a busy machine is late by a share of it.
PARTIAL_RESERVE, PARTIAL_RESERVE_S = 0.1, 0.02


@dataclass(frozen=True, slots=True, eq=False)
class ScoredJob:
    """What the model found for one job. ``cached``: the history was in the prefix cache."""

    scores: Scores
    queue_s: float
    model_s: float
    cached: bool


async def rank_with_features(
    ranker: Ranker,
    engine: EngineHandle,
    query: RankQuery,
    features: UserFeatures,
    fault: FallbackReason | None,
    deadline: float,
) -> Ranking:
    """Ranks by the model, or by the trees where the engine fails.

    ``fault``: why the user's vector cannot be used; the other features are sound.
    ``deadline``: on time.monotonic's clock. Raises FallbackRefusedError, WorkExpiredError or
    EngineClosedError.
    """
    fallback = fallback_after(fault, allow_fallback=query.allow_fallback)
    job = await prepare(ranker, query, features, fault)
    try:
        scored = await score(ranker, engine, query, job, deadline)
    except EngineFailedError as error:
        return _rank_by_trees(ranker.loaded, query, features, fault, job, error)
    timing = Timing(prompt_s=job.prompt_s, queue_s=scored.queue_s, model_s=scored.model_s)
    record = ScoringRecord(
        job.tree_logits(),
        scored.scores,
        _usable_vector(ranker.loaded, features, fault),
        features.feature_version,
        cached=scored.cached,
    )
    items = _ranked(query, scored.scores, job.tree_logits())
    return Ranking(fallback, job.routing(), items, timing, record)


def rank_by_popularity(loaded: LoadedBundle, query: RankQuery) -> Ranking:
    """Ranks by training rows alone, without features. Raises FallbackRefusedError."""
    reason = FallbackReason.FEATURES_UNAVAILABLE
    fallback = fallback_after(reason, allow_fallback=query.allow_fallback)
    indices = [loaded.catalogue.index(item.item_id) for item in query.user.candidates]
    popularity = loaded.features.popularity
    rows = np.array([popularity[index] if index >= 0 else 0.0 for index in indices])
    return Ranking(fallback, Routing(), _unscored(query, rows), Timing())


async def prepare(
    ranker: Ranker, query: RankQuery, features: UserFeatures, fault: FallbackReason | None
) -> RankingJob:
    """The engine's job. Long lists, histories and texts are prepared on a thread."""
    is_short = len(query.user.candidates) <= MAX_CANDIDATES_ON_LOOP and has_few_events(features)
    if is_short and _num_chars(query) <= MAX_CHARS_ON_LOOP:
        return ranker.prepare(query, features, fault)
    return await asyncio.to_thread(_prepare_whole, ranker, query, features, fault)


async def score(
    ranker: Ranker, engine: EngineHandle, query: RankQuery, job: RankingJob, deadline: float
) -> ScoredJob:
    """Runs the model; what it does not need is computed meanwhile.

    Raises WorkExpiredError, EngineFailedError or EngineClosedError.
    """
    with engine.submit(job.prompt, job.weights, options_of(query, deadline)) as request:
        if await request.started():
            job.precompute()  # the model thread is busy, and the event loop is free
        scored = await request.result()
    scores = ranker.finish(job, scored.margins)
    return ScoredJob(scores, scored.queue_s, scored.model_s, scored.reused)


def options_of(query: RankQuery, deadline: float) -> RequestOptions:
    """The engine's options; a partial answer must leave in time to arrive."""
    if not query.allow_partial:
        return RequestOptions(deadline, query.caller, began=query.began)
    reserve_s = max(PARTIAL_RESERVE_S, PARTIAL_RESERVE * (deadline - time.monotonic()))
    return RequestOptions(deadline - reserve_s, query.caller, partial=True, began=query.began)


def _num_chars(query: RankQuery) -> int:
    return sum(
        len(item.title) + len(item.description) + sum(map(len, item.attributes))
        for item in query.user.candidates
    )


def _prepare_whole(
    ranker: Ranker, query: RankQuery, features: UserFeatures, fault: FallbackReason | None
) -> RankingJob:
    job = ranker.prepare(query, features, fault)
    job.precompute()
    return job


def _rank_by_trees(
    loaded: LoadedBundle,
    query: RankQuery,
    features: UserFeatures,
    fault: FallbackReason | None,
    job: RankingJob,
    failure: EngineFailedError,
) -> Ranking:
    """Raises FallbackRefusedError, with the failure as its cause."""
    try:
        reason = FallbackReason.ENGINE_FAILED
        fallback = fallback_after(reason, allow_fallback=query.allow_fallback)
    except FallbackRefusedError as refused:
        raise refused from failure
    tree_logits = job.tree_logits()
    missing = np.full_like(tree_logits, np.nan)
    record = ScoringRecord(
        tree_logits,
        Scores(missing, missing),
        _usable_vector(loaded, features, fault),
        features.feature_version,
        failure,
    )
    routing, timing = Routing(cold_start=features.cold_start), Timing(prompt_s=job.prompt_s)
    return Ranking(fallback, routing, _unscored(query, tree_logits), timing, record)


def _usable_vector(
    loaded: LoadedBundle, features: UserFeatures, fault: FallbackReason | None
) -> NDArray[np.floating] | None:
    return None if fault or features.cold_start else loaded.routing_vector(features)


def _ranked(
    query: RankQuery, scores: Scores, tree_logits: NDArray[np.float64]
) -> tuple[RankedItem, ...]:
    """Scored items by their score, and behind them the rest by the trees."""
    missing = np.isnan(scores.score)
    score = np.where(missing, tree_logits, scores.score)
    indices = np.lexsort((-score, missing))[: query.top_k]
    probability = np.where(missing, 0.0, scores.probability)
    rows = zip(
        [query.user.candidates[index].item_id for index in indices.tolist()],
        score[indices].tolist(),
        probability[indices].tolist(),
        (~missing[indices]).tolist(),
        strict=True,
    )
    return tuple(RankedItem(*row) for row in rows)


def _unscored(query: RankQuery, values: NDArray[np.float64]) -> tuple[RankedItem, ...]:
    candidates = query.user.candidates
    return tuple(
        RankedItem(candidates[index].item_id, float(values[index]), 0.0, scored=False)
        for index in _best(values, query.top_k)
    )


def _best(values: NDArray[np.float64], top_k: int | None) -> list[int]:
    """Indices by value, best first; equal ones in the order of the request."""
    if not np.isfinite(values).all():
        raise ArithmeticError("scores contain NaN or infinity")
    indices: list[int] = np.argsort(-values, kind="stable")[:top_k].tolist()
    return indices
