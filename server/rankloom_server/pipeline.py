"""One ranking, from query to answer, on domain values: it knows no gRPC."""

from __future__ import annotations

import time
from dataclasses import replace

from rankloom_adapters.generation import Generations
from rankloom_server import logs
from rankloom_server.answers import RankAnswer, Ranking
from rankloom_server.errors import FeaturesUnavailableError
from rankloom_server.features import fault_of
from rankloom_server.ladder import RungReason
from rankloom_server.parse import RankQuery, check_semantics, check_texts
from rankloom_server.scoring import Served, rank_by_popularity, rank_with_features


class RankPipeline:
    """Ranks with the generation in service. Used from one event loop."""

    def __init__(self, generations: Generations[Served], *, feature_share: float) -> None:
        self._generations = generations
        self._feature_share = feature_share

    async def rank(self, query: RankQuery, deadline: float) -> RankAnswer:
        """Answers one query; ``deadline`` is on time.monotonic's clock.

        Raises InvalidFieldError, UnknownGenerationError, DegradedRefusedError,
        TimeoutError, WorkExpiredError or EngineClosedError.
        """
        started = time.perf_counter()
        with self._generations.lease(query.generation) as lease:
            check_texts(query, lease.value.catalogue)
            check_semantics(query, lease.value.runner.ranks)
            ranking = await self._rank(lease.value, query, deadline)
            timing = replace(ranking.timing, total_s=time.perf_counter() - started)
            ranking = replace(ranking, timing=timing)
            return RankAnswer(lease.number, lease.value.bundle_digest, ranking)

    async def _rank(self, served: Served, query: RankQuery, deadline: float) -> Ranking:
        started = time.perf_counter()
        try:
            timeout_s = self._feature_share * _time_left(deadline)
            features = await served.features.get(query.user, timeout_s)
            fault = fault_of(features, served.space, len(query.user.candidates))
            if fault is RungReason.FEATURES_UNAVAILABLE:
                raise FeaturesUnavailableError("tabular_invalid")
            features_s = time.perf_counter() - started
            ranking = await rank_with_features(served, query, features, fault, deadline)
        except FeaturesUnavailableError as error:
            logs.note(features_failure=error.cause)
            features_s = time.perf_counter() - started
            ranking = rank_by_popularity(served, query)
        return replace(ranking, timing=replace(ranking.timing, features_s=features_s))


def _time_left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError
    return left_s
