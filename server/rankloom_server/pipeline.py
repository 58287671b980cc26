"""One ranking or explanation, from query to answer, on domain values: it knows no gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from rankloom_adapters.revision import Lease, OtherBundleError, Revisions
from rankloom_engine.errors import EngineFailedError, EngineOverloadedError
from rankloom_engine.sequence import RequestOptions
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_ranker.answers import Explanation, Ranking
from rankloom_ranker.errors import FallbackRefusedError
from rankloom_ranker.evidence import Ablations
from rankloom_ranker.explaining import ExplanationWriter, explain_best
from rankloom_ranker.fallback import FallbackLevel, FallbackReason
from rankloom_ranker.query import ExplainQuery, RankQuery
from rankloom_ranker.ranking import rank_by_popularity, rank_with_features
from rankloom_ranker.served import served_ranking
from rankloom_server import logs
from rankloom_server.errors import FeaturesUnavailableError
from rankloom_server.features import FeatureRead, ablated_features, usable_features
from rankloom_server.parse import check_fusion, check_text, check_texts
from rankloom_server.revision_loader import ServedRevision
from rankloom_server.served_log import ServedLog
from rankloom_server.trials import Observer

Arrange = Callable[[Ranking], Ranking]
_NEARLY_S = 0.01  # caller, gRPC and server each have a clock for the deadline


@dataclass(frozen=True, slots=True)
class RankAnswer:
    """A ranking and the revision that made it."""

    revision: int
    bundle_digest: str
    ranking: Ranking


class ExplainAnswer:
    """An explanation that is being written, and the revision that writes it."""

    def __init__(self, lease: Lease[ServedRevision], writer: ExplanationWriter) -> None:
        self.revision, self.bundle_digest = lease.number, lease.value.loaded.digest
        self._lease, self._writer = lease, writer

    async def texts(self) -> AsyncGenerator[str, None]:
        """Pieces of the text. Raises RevisionRetiredError where the revision was retired."""
        async with aclosing(self._writer.texts()) as texts:
            async for text in texts:
                self._lease.check()
                yield text
        self._lease.check()

    @property
    def explanation(self) -> Explanation:
        """The end of the explanation, once all texts have been read."""
        return self._writer.final


class RankPipeline:
    """Ranks and explains with the revision in service. Used from one event loop."""

    def __init__(
        self,
        revisions: Revisions[ServedRevision],
        *,
        feature_share: float,
        observer: Observer | None = None,
        served_log: ServedLog | None = None,
    ) -> None:
        """``observer``: is notified of every ranking, for a revision on trial.

        ``served_log``: keeps every ranking that is answered.
        """
        self._served_log = served_log
        self._revisions = revisions
        self._observer = observer
        self._feature_share = feature_share
        self.num_scored = self.num_prefiltered = 0
        """Candidates of all rankings: scored by the model, and left to the trees by a prefilter."""

    async def rank(self, query: RankQuery, deadline: float) -> RankAnswer:
        """Answers one query; ``deadline`` is on time.monotonic's clock.

        Raises InvalidFieldError, UnknownRevisionError, FallbackRefusedError,
        EngineOverloadedError, TimeoutError, WorkExpiredError or EngineClosedError.
        """
        with self._revisions.lease(query.revision, query.user_key) as lease:
            check_digest(lease, query.bundle_digest)
            return await self.rank_leased(lease, query, deadline, time.perf_counter())

    async def rank_leased(
        self,
        lease: Lease[ServedRevision],
        query: RankQuery,
        deadline: float,
        started: float,
        arranged: Arrange | None = None,
        read: FeatureRead | None = None,
    ) -> RankAnswer:
        """Ranks under a lease that the caller keeps; raises what ``rank`` raises.

        ``started``: when the call began, on time.perf_counter's clock. ``arranged``: changes which
        items are returned, and in which order. ``read``: the user's features, if the call has
        read them already; all of an answer is then of one history.
        """
        try:
            check_texts(query, lease.value.loaded.catalogue)
            check_fusion(query, lease.value.engine.ranks)
            check_room(lease.value, query, deadline)
            ranking, features = await self._rank(lease.value, query, deadline, read)
        except EngineOverloadedError:
            raise  # refused for what others asked: it says nothing about the revision
        except Exception:
            self._notify(query, lease, None, started)
            raise
        except asyncio.CancelledError:
            if time.monotonic() > deadline - _NEARLY_S:  # else the caller has left
                self._notify(query, lease, None, started)
            raise
        total_s = time.perf_counter() - started
        ranking = replace(ranking, timing=replace(ranking.timing, total_s=total_s))
        ranking = arranged(ranking) if arranged else ranking
        self._notify(query, lease, ranking, started)
        self._keep(query, lease, ranking, features)
        self._count(query, ranking)
        if query.explain_top_k and features is not None:
            ranking = await self._explained(lease.value, query, features, ranking, deadline)
        return RankAnswer(lease.number, lease.value.loaded.digest, ranking)

    @asynccontextmanager
    async def explain(self, query: ExplainQuery, deadline: float) -> AsyncIterator[ExplainAnswer]:
        """An explanation by one revision, which is leased to the end of the block.

        Raises what ``rank`` raises, also while the texts are read, and RevisionRetiredError.
        """
        ranking = query.ranking
        with (
            self._revisions.lease(ranking.revision, ranking.user_key) as lease,
            without_fallback(),
        ):
            check_digest(lease, ranking.bundle_digest)
            served = lease.value
            check_text(ranking.user.candidates[0], served.loaded.catalogue, "candidate")
            check_fusion(ranking, served.engine.ranks)
            check_room(served, ranking, deadline)
            features, fault = await self.features(served, ranking.user, deadline)
            ablations = self._ablations(served, deadline)
            writer = ExplanationWriter(
                served.ranker, served.engine, query, features, fault, ablations, deadline
            )
            yield ExplainAnswer(lease, writer)

    def _notify(
        self,
        query: RankQuery,
        lease: Lease[ServedRevision],
        ranking: Ranking | None,
        started: float,
    ) -> None:
        if self._observer is not None:
            self._observer.ranked(query, lease, ranking, time.perf_counter() - started)

    def _keep(
        self,
        query: RankQuery,
        lease: Lease[ServedRevision],
        ranking: Ranking,
        features: UserFeatures | None,
    ) -> None:
        if self._served_log is not None:
            log, digest = self._served_log, lease.value.loaded.digest
            log.offer(served_ranking(log.key, query, lease.number, digest, ranking, features))

    def _count(self, query: RankQuery, ranking: Ranking) -> None:
        if ranking.record is None or not (num := int(ranking.record.scored.sum())):
            return  # no model answered
        self.num_scored += num
        if query.prefilter is not None:
            self.num_prefiltered += max(len(query.user.candidates) - query.prefilter, 0)

    async def _rank(
        self,
        served: ServedRevision,
        query: RankQuery,
        deadline: float,
        read: FeatureRead | None,
    ) -> tuple[Ranking, UserFeatures | None]:
        """The ranking, and the features that it was made from."""
        started = time.perf_counter()
        if read is None:
            read = await self.read(served, query.user, deadline)
        else:
            read = await read.with_candidates(served.loaded.provider, query.user.candidates)
        features_s = time.perf_counter() - started
        if read.features is None:
            return _with_features_s(rank_by_popularity(served.loaded, query), features_s), None
        with logged_failure():
            ranking = await rank_with_features(
                served.ranker, served.engine, query, read.features, read.fault, deadline
            )
        log_failure(ranking)
        return _with_features_s(ranking, features_s), read.features

    async def _explained(
        self,
        served: ServedRevision,
        query: RankQuery,
        features: UserFeatures,
        ranking: Ranking,
        deadline: float,
    ) -> Ranking:
        """The ranking with explanations of its best items; without them if the engine fails."""
        if ranking.fallback.level is not FallbackLevel.EXACT_MIXTURE:
            return ranking
        ablations = self._ablations(served, deadline)
        try:
            explanations = await explain_best(
                served.ranker, served.engine, query, features, ranking, ablations, deadline
            )
        except EngineFailedError as error:
            logs.fault("engine_failed", error)
            return ranking
        return replace(ranking, explanations=explanations)

    def _ablations(self, served: ServedRevision, deadline: float) -> Ablations:
        async def ablations(query: UserQuery) -> tuple[UserFeatures, ...]:
            timeout_s = self._feature_share * _time_left(deadline)
            try:
                return await ablated_features(
                    served.features, served.loaded.space, query, timeout_s
                )
            except FeaturesUnavailableError as error:
                logs.note(evidence_failure=error.cause)
                return ()

        return ablations

    async def read(self, served: ServedRevision, user: UserQuery, deadline: float) -> FeatureRead:
        """As ``features``, with none where nothing usable comes in time. Raises TimeoutError."""
        try:
            return FeatureRead(*await self.features(served, user, deadline))
        except FeaturesUnavailableError as error:
            logs.note(features_failure=error.cause)
            return FeatureRead(None)

    async def features(
        self, served: ServedRevision, user: UserQuery, deadline: float
    ) -> tuple[UserFeatures, FallbackReason | None]:
        """As usable_features, in a share of the time left. Raises TimeoutError too."""
        timeout_s = self._feature_share * _time_left(deadline)
        try:
            return await usable_features(served.features, served.loaded.space, user, timeout_s)
        except FeaturesUnavailableError:
            _time_left(deadline)  # where the call itself is late, that is what is wrong
            raise


def check_digest(lease: Lease[ServedRevision], bundle_digest: str) -> None:
    """Raises OtherBundleError: two servers may have two bundles under one number."""
    if bundle_digest and bundle_digest != lease.value.loaded.digest:
        raise OtherBundleError(lease.number)


def check_room(served: ServedRevision, query: RankQuery, deadline: float) -> None:
    """Raises EngineOverloadedError before work is spent on features and prompt."""
    served.engine.check_room(RequestOptions(deadline, query.caller, partial=query.allow_partial))


def log_failure(ranking: Ranking) -> None:
    """Logs what the engine failed with where a fallback answered for it."""
    if ranking.record is not None and ranking.record.failure is not None:
        logs.fault("engine_failed", ranking.record.failure)


@contextmanager
def logged_failure() -> Iterator[None]:
    """Logs what the engine failed with where the caller refused the fallback for it."""
    try:
        yield
    except FallbackRefusedError as error:
        if isinstance(error.__cause__, EngineFailedError):
            logs.fault("engine_failed", error.__cause__)
        raise


@contextmanager
def without_fallback() -> Iterator[None]:
    """Turns failures that a ranking would fall back from into FallbackRefusedError."""
    try:
        yield
    except FeaturesUnavailableError as error:
        logs.note(features_failure=error.cause)
        raise FallbackRefusedError(FallbackReason.FEATURES_UNAVAILABLE.name) from error
    except EngineFailedError as error:
        logs.fault("engine_failed", error)
        raise FallbackRefusedError(FallbackReason.ENGINE_FAILED.name) from error


def _with_features_s(ranking: Ranking, features_s: float) -> Ranking:
    return replace(ranking, timing=replace(ranking.timing, features_s=features_s))


def _time_left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0.0:
        raise TimeoutError
    return left_s
