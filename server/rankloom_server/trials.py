"""Collects evidence about a revision on trial; answers again for a shadow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from rankloom_adapters.revision import Lease, Revisions, UnknownRevisionError
from rankloom_adapters.rollout.evidence import (
    Observation,
    Reply,
    compare,
    compare_retrievals,
    observe,
    observe_failure,
)
from rankloom_adapters.rollout.manager import RolloutManager
from rankloom_adapters.rollout.states import RolloutState
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.split import Arm, arm_of, position_of
from rankloom_engine.errors import NonFiniteError
from rankloom_features.provider import UserFeatures
from rankloom_ranker.answers import Ranking, Retrieval, RetrievalOrder, ScoringRecord
from rankloom_ranker.fallback import FallbackLevel
from rankloom_ranker.query import RankQuery, RetrieveQuery
from rankloom_server import logs
from rankloom_server.revision_loader import ServedRevision
from rankloom_server.shadowing import ranked_again, retrieved_again

_MANTISSA = 1 << 53


class Observer(Protocol):
    """Is notified of every requested ranking and retrieval."""

    def ranked(
        self,
        query: RankQuery,
        lease: Lease[ServedRevision],
        ranking: Ranking | None,
        latency_s: float,
    ) -> None:
        """``ranking``: None if there is no answer. Must not raise or take long."""
        ...

    def retrieved(
        self,
        query: RetrieveQuery,
        lease: Lease[ServedRevision],
        features: UserFeatures | None,
        found: Retrieval,
    ) -> None:
        """``features``: that the items were found by. Must not raise or take long."""
        ...


class Trials:
    """Collects the evidence of the running trial, if there is one. Use it from one event loop."""

    def __init__(
        self, manager: RolloutManager[ServedRevision], revisions: Revisions[ServedRevision]
    ) -> None:
        self._manager, self._revisions = manager, revisions
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ranking = self._is_retrieving = self._is_judging = False
        self._random = random.Random()

    def ranked(
        self,
        query: RankQuery,
        lease: Lease[ServedRevision],
        ranking: Ranking | None,
        latency_s: float,
    ) -> None:
        """Adds evidence for a canary; for a shadow, ranks again with it."""
        trial = self._manager.trial
        if trial is None or query.revision is not None:
            return
        if trial.state is RolloutState.CANARY:
            self._see(trial, query, lease, ranking, latency_s)
        elif ranking is None or query.may_leave_unscored:
            return  # unscored candidates cannot be compared
        elif lease.number == self._manager.ledger.active:
            self._shadow(trial, query, lease, ranking)

    def retrieved(
        self,
        query: RetrieveQuery,
        lease: Lease[ServedRevision],
        features: UserFeatures | None,
        found: Retrieval,
    ) -> None:
        """Retrieves a sample of requests again with a shadow, one at a time.

        A list says nothing about the index where it is a fallback, or all that may be retrieved.
        """
        trial = self._manager.trial
        if trial is None or trial.state is not RolloutState.SHADOW or query.revision is not None:
            return
        if lease.number != self._manager.ledger.active or self._is_retrieving:
            return
        if found.reason is not None or len(found.item_ids) < query.k or not self._takes(trial):
            return
        self._is_retrieving = True
        group = _group_among(lease.value, features, found)
        self._begin(self._compare_retrieval(trial, query, group, found))

    async def close(self) -> None:
        """Cancels running comparisons and checks."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _see(
        self,
        trial: Trial,
        query: RankQuery,
        lease: Lease[ServedRevision],
        ranking: Ranking | None,
        latency_s: float,
    ) -> None:
        traffic = self._revisions.traffic
        arm = arm_of(query.user_key, traffic.salt, traffic.percent)
        answered = traffic.canary if arm is Arm.CANARY else traffic.active
        if arm is Arm.REST or traffic.canary != trial.revision or lease.number != answered:
            return  # it began before the trial, or its arm is not compared
        user, group = _number_of(query.user_key), self._group_of(ranking)
        trial.add(arm, _observed(user, group, ranking, latency_s))
        self._judge_if_due(trial)

    def _group_of(self, ranking: Ranking | None) -> str:
        """The user's largest expert in the active revision's router."""
        record = ranking.record if ranking else None
        if record is None or record.vector is None:
            return ""
        with self._revisions.lease() as active:
            loaded = active.value.loaded
            if record.feature_version != loaded.space.feature_version:
                return ""
            return loaded.router.largest(record.vector)

    def _judge_if_due(self, trial: Trial) -> None:
        if trial.is_due and not self._is_judging:
            self._is_judging = True
            self._begin(self._judge())

    async def _judge(self) -> None:
        try:
            judgement = await self._manager.judge()
            if judgement is not None:
                logs.write("judged", verdict=judgement.verdict.value, reason=judgement.reason)
        except Exception as error:
            logs.fault("judging_failed", error)
        finally:
            self._is_judging = False

    def _shadow(
        self, trial: Trial, query: RankQuery, lease: Lease[ServedRevision], ranking: Ranking
    ) -> None:
        """Ranks a sample of requests again, one at a time, while no request waits for the model."""
        if self._is_ranking or lease.value.engine.num_waiting:
            return
        if not self._takes(trial):
            return
        self._is_ranking = True
        self._begin(self._compare(trial, query, ranking))

    def _takes(self, trial: Trial) -> bool:
        """Whether one more request is in a shadow's sample."""
        return self._random.random() * 100 < trial.percent

    async def _compare(self, trial: Trial, query: RankQuery, ranking: Ranking) -> None:
        try:
            with (
                suppress(UnknownRevisionError),
                self._revisions.lease(trial.revision) as lease,
            ):
                theirs = await ranked_again(lease.value, query)
                group = self._group_of(ranking)
                pair = compare(
                    _number_of(query.user_key),
                    group,
                    _reply(ranking),
                    _reply(theirs),
                    trial.thresholds.top_k,
                )
                trial.add_pair(pair)
                self._judge_if_due(trial)
        except Exception as error:
            logs.fault("shadow_failed", error)
        finally:
            self._is_ranking = False

    async def _compare_retrieval(
        self, trial: Trial, query: RetrieveQuery, group: str, found: Retrieval
    ) -> None:
        try:
            with (
                suppress(UnknownRevisionError),
                self._revisions.lease(trial.revision) as lease,
            ):
                theirs = await retrieved_again(lease.value, query)
                user = _number_of(query.user_key)
                trial.add_retrieval(compare_retrievals(user, group, found.item_ids, theirs))
                self._judge_if_due(trial)
        except Exception as error:
            logs.fault("shadow_failed", error)
        finally:
            self._is_retrieving = False

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _observed(user: int, group: str, ranking: Ranking | None, latency_s: float) -> Observation:
    record = ranking.record if ranking else None
    if ranking is None or record is None or not _is_exact(ranking) or not record.scored.any():
        failure = observe_failure(user, group, latency_s)
        return replace(failure, non_finite=record is not None and _is_non_finite(record))
    done = record.scored
    return observe(
        user,
        group,
        latency_s,
        record.scores.score[done],
        record.tree_logits[done],
        record.scores.probability[done],
        reused=record.cached,
    )


def _reply(ranking: Ranking | None) -> Reply:
    if ranking is None or ranking.record is None:
        return Reply(0.0, None)
    record = ranking.record
    failed = not _is_exact(ranking) and not _is_non_finite(record)
    scores = None if failed else record.scores.score
    return Reply(ranking.timing.model_s, scores, reused=record.cached)


def _is_exact(ranking: Ranking) -> bool:
    return ranking.fallback.level is FallbackLevel.EXACT_MIXTURE


def _is_non_finite(record: ScoringRecord) -> bool:
    return isinstance(record.failure, NonFiniteError)


def _number_of(user_key: str) -> int:
    return int(position_of(user_key, "user") * _MANTISSA)


def _group_among(served: ServedRevision, features: UserFeatures | None, found: Retrieval) -> str:
    """The user's largest expert in a revision's router; empty for who has no vector."""
    if features is None or found.order is not RetrievalOrder.VECTOR:
        return ""
    return served.loaded.router.largest(served.loaded.routing_vector(features))
