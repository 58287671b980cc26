"""One retrieval, or one recommendation: a retrieval that is ranked under the same lease."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from rankloom_adapters.revision import Lease, Revisions
from rankloom_features.catalogue import Item
from rankloom_ranker.answers import Ranking, Retrieval, Routing, Timing
from rankloom_ranker.diversity import most_marginal, scaled
from rankloom_ranker.fallback import fallback_after
from rankloom_ranker.loaded import LoadedBundle
from rankloom_ranker.query import RankQuery, RecommendQuery, RetrieveQuery
from rankloom_ranker.retrieving import retrieve
from rankloom_server.features import FeatureRead
from rankloom_server.pipeline import RankAnswer, RankPipeline, check_digest, check_room
from rankloom_server.revision_loader import ServedRevision
from rankloom_server.trials import Observer


@dataclass(frozen=True, slots=True)
class RetrieveAnswer:
    """Retrieved items, and the revision that found them."""

    revision: int
    bundle_digest: str
    retrieval: Retrieval
    timing: Timing


@dataclass(frozen=True, slots=True)
class RecommendAnswer:
    """A ranking of retrieved items. ``timing``: of the retrieval; the ranking has the total."""

    ranked: RankAnswer
    retrieval: Retrieval
    timing: Timing


class RetrievalPipeline:
    """Retrieves with the revision in service. Used from one event loop."""

    def __init__(
        self,
        revisions: Revisions[ServedRevision],
        ranking: RankPipeline,
        observer: Observer | None = None,
    ) -> None:
        """``observer``: is notified of every retrieval, for a revision on trial."""
        self._revisions, self._ranking, self._observer = revisions, ranking, observer

    async def retrieve(self, query: RetrieveQuery, deadline: float) -> RetrieveAnswer:
        """Answers one query; ``deadline`` is on time.monotonic's clock.

        Raises UnknownAttributeError, UnknownRevisionError, FallbackRefusedError or TimeoutError.
        """
        started = time.perf_counter()
        with self._revisions.lease(query.revision, query.user_key) as lease:
            check_digest(lease, query.bundle_digest)
            _, found, timing = await self._retrieved(lease, query, deadline)
            timing = replace(timing, total_s=time.perf_counter() - started)
            return RetrieveAnswer(lease.number, lease.value.loaded.digest, found, timing)

    async def recommend(self, query: RecommendQuery, deadline: float) -> RecommendAnswer:
        """Retrieves and ranks by one revision. Raises what ``retrieve`` and ``rank`` raise."""
        started = time.perf_counter()
        ranking = query.ranking
        with self._revisions.lease(ranking.revision, ranking.user_key) as lease:
            check_digest(lease, ranking.bundle_digest)
            check_room(lease.value, ranking, deadline)
            read, found, timing = await self._retrieved(lease, query.retrieval, deadline)
            if not found.item_ids:
                return RecommendAnswer(_nothing(lease, timing, started), found, timing)
            arranged = partial(_diverse, lease.value.loaded, query)
            ranked = await self._ranking.rank_leased(
                lease, _ranking_of(query, found), deadline, started, arranged, read
            )
            return RecommendAnswer(_with_retrieval_s(ranked, timing), found, timing)

    async def _retrieved(
        self, lease: Lease[ServedRevision], query: RetrieveQuery, deadline: float
    ) -> tuple[FeatureRead, Retrieval, Timing]:
        """The query's items, and the features that they were found by."""
        served, started = lease.value, time.perf_counter()
        read = await self._ranking.read(served, query.user, deadline)
        searching = time.perf_counter()
        found = await retrieve(served.loaded.retriever, query, read.features, read.fault)
        done = time.perf_counter()
        if self._observer is not None:
            self._observer.retrieved(query, lease, read.features, found)
        return read, found, Timing(features_s=searching - started, search_s=done - searching)


def _ranking_of(query: RecommendQuery, found: Retrieval) -> RankQuery:
    """How the retrieved items are ranked: all of them, if the best are then to differ."""
    candidates = tuple(map(Item, found.item_ids))
    user = replace(query.ranking.user, candidates=candidates)
    return replace(query.ranking, user=user, top_k=None if query.diversity else query.k)


def _diverse(loaded: LoadedBundle, query: RecommendQuery, ranking: Ranking) -> Ranking:
    """The best k, chosen for relevance and difference if that is asked for."""
    if not query.diversity:
        return ranking
    items = ranking.items
    relevance = scaled(
        np.array([item.score for item in items]), np.array([item.scored for item in items])
    )
    vectors = loaded.provider.scorer.vectors
    own = vectors[[loaded.catalogue.index(item.item_id) for item in items]]
    chosen = most_marginal(relevance, own, query.k, query.diversity)
    return replace(ranking, items=tuple(items[index] for index in chosen.tolist()))


def _nothing(lease: Lease[ServedRevision], timing: Timing, started: float) -> RankAnswer:
    """The answer where no item may be retrieved: no model is needed to rank none."""
    total_s = time.perf_counter() - started
    ranking = Ranking(
        fallback_after(None, allow_fallback=True), Routing(), (), replace(timing, total_s=total_s)
    )
    return RankAnswer(lease.number, lease.value.loaded.digest, ranking)


def _with_retrieval_s(answer: RankAnswer, of_retrieval: Timing) -> RankAnswer:
    timing = answer.ranking.timing
    timing = replace(
        timing,
        features_s=timing.features_s + of_retrieval.features_s,
        search_s=of_retrieval.search_s,
    )
    return replace(answer, ranking=replace(answer.ranking, timing=timing))
