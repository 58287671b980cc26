"""One ranking or explanation, from query to answer, on domain values: it knows no gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from rankloom_adapters.revision import Lease, Revisions
from rankloom_features.provider import UserFeatures
from rankloom_server import logs
from rankloom_server.answers import ExplainAnswer, Explanation, RankAnswer, Ranking
from rankloom_server.errors import FeaturesUnavailableError
from rankloom_server.explaining import explain_with_features, top_level_only
from rankloom_server.fallback import FallbackReason
from rankloom_server.features import fault_of
from rankloom_server.parse import (
    ExplainQuery,
    RankQuery,
    check_fusion,
    check_text,
    check_texts,
)
from rankloom_server.scoring import Served, rank_by_popularity, rank_with_features
from rankloom_server.trials import Observer

_NEARLY_S = 0.01  # caller, gRPC and server each have a clock for the deadline


class RankPipeline:
    """Ranks and explains with the revision in service. Used from one event loop."""

    def __init__(
        self,
        revisions: Revisions[Served],
        *,
        feature_share: float,
        observer: Observer | None = None,
    ) -> None:
        """``observer``: hears of every ranking, for what is on trial."""
        self._revisions = revisions
        self._observer = observer
        self._feature_share = feature_share

    async def rank(self, query: RankQuery, deadline: float) -> RankAnswer:
        """Answers one query; ``deadline`` is on time.monotonic's clock.

        Raises InvalidFieldError, UnknownRevisionError, FallbackRefusedError,
        TimeoutError, WorkExpiredError or EngineClosedError.
        """
        started = time.perf_counter()
        with self._revisions.lease(query.revision, query.user_key) as lease:
            try:
                check_texts(query, lease.value.catalogue)
                check_fusion(query, lease.value.runner.ranks)
                ranking, features_s = await self._rank(lease.value, query, deadline)
            except Exception:
                self._tell(query, lease, None, started)
                raise
            except asyncio.CancelledError:
                if time.monotonic() > deadline - _NEARLY_S:  # else the caller has left
                    self._tell(query, lease, None, started)
                raise
            total_s = time.perf_counter() - started
            timing = replace(ranking.timing, features_s=features_s, total_s=total_s)
            ranking = replace(ranking, timing=timing)
            self._tell(query, lease, ranking, started)
            return RankAnswer(lease.number, lease.value.bundle_digest, ranking)

    def _tell(
        self, query: RankQuery, lease: Lease[Served], ranking: Ranking | None, started: float
    ) -> None:
        if self._observer is not None:
            self._observer.ranked(query, lease, ranking, time.perf_counter() - started)

    async def explain(
        self, query: ExplainQuery, deadline: float
    ) -> AsyncGenerator[str | ExplainAnswer, None]:
        """Yields the text in pieces and then the answer, all by one revision.

        Raises what ``rank`` raises, also between the pieces, and RevisionRetiredError
        where the revision was let go meanwhile.
        """
        ranking = query.ranking
        with (
            self._revisions.lease(ranking.revision, ranking.user_key) as lease,
            top_level_only(),
        ):
            check_text(ranking.user.candidates[0], lease.value.catalogue, "candidate")
            check_fusion(ranking, lease.value.runner.ranks)
            features, fault = await self._features(lease.value, ranking, deadline)
            told = explain_with_features(lease.value, query, features, fault, deadline)
            async with aclosing(told) as parts:
                async for part in parts:
                    lease.check()
                    yield part if isinstance(part, str) else _answer(lease, part)

    async def _rank(
        self, served: Served, query: RankQuery, deadline: float
    ) -> tuple[Ranking, float]:
        """The ranking, and the seconds that its features took."""
        started = time.perf_counter()
        try:
            features, fault = await self._features(served, query, deadline)
            features_s = time.perf_counter() - started
            return await rank_with_features(served, query, features, fault, deadline), features_s
        except FeaturesUnavailableError as error:
            logs.note(features_failure=error.cause)
            features_s = time.perf_counter() - started
            return rank_by_popularity(served, query), features_s

    async def _features(
        self, served: Served, query: RankQuery, deadline: float
    ) -> tuple[UserFeatures, FallbackReason | None]:
        """The user's features, and what is wrong with the vector, if anything."""
        timeout_s = self._feature_share * _time_left(deadline)
        try:
            features = await served.features.get(query.user, timeout_s)
        except FeaturesUnavailableError:
            _time_left(deadline)  # where the call itself is late, that is what is wrong
            raise
        fault = fault_of(features, served.space, len(query.user.candidates))
        if fault is FallbackReason.FEATURES_UNAVAILABLE:
            raise FeaturesUnavailableError("tabular_invalid")
        return features, fault


def _answer(lease: Lease[Served], explanation: Explanation) -> ExplainAnswer:
    return ExplainAnswer(lease.number, lease.value.bundle_digest, explanation)


def _time_left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError
    return left_s
