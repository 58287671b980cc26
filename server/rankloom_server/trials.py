"""Watches the rankings of a revision on trial, and ranks once more for a shadow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from rankloom_adapters.revision import Lease, Revisions, UnknownRevisionError
from rankloom_adapters.rollout.evidence import (
    Observation,
    Reply,
    compare,
    observe,
    observe_failure,
)
from rankloom_adapters.rollout.manager import RolloutManager
from rankloom_adapters.rollout.states import RolloutState
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.router import Router
from rankloom_adapters.split import Arm, arm_of, position_of
from rankloom_server import logs
from rankloom_server.answers import Ranking, Seen
from rankloom_server.fallback import FallbackLevel
from rankloom_server.features import fault_of
from rankloom_server.parse import RankQuery
from rankloom_server.scoring import Served, rank_with_features

SHADOW_TIME_S = 5.0
_SHADOW_CALLER = "\0shadow"  # no host is called so: its share of the model is its own
_MANTISSA = 1 << 53


class Observer(Protocol):
    """Hears of every ranking that was asked for."""

    def ranked(
        self, query: RankQuery, lease: Lease[Served], ranking: Ranking | None, latency_s: float
    ) -> None:
        """``ranking``: None where there is no answer. Must not raise, nor take long."""
        ...


class Trials:
    """Collects the evidence of the running trial, if there is one. Use it from one event loop."""

    def __init__(self, manager: RolloutManager[Served], revisions: Revisions[Served]) -> None:
        self._manager, self._revisions = manager, revisions
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_shadowing = self._is_judging = False
        self._random = random.Random()

    def ranked(
        self, query: RankQuery, lease: Lease[Served], ranking: Ranking | None, latency_s: float
    ) -> None:
        """Evidence for a canary; for a shadow, a reason to rank once more."""
        trial = self._manager.trial
        if trial is None or query.revision is not None:
            return
        if trial.state is RolloutState.CANARY:
            self._see(trial, query, lease, ranking, latency_s)
        elif ranking is None or query.allow_partial:
            return  # what there was no time for cannot be compared
        elif lease.number == self._manager.ledger.active:
            self._shadow(trial, query, lease, ranking)

    async def close(self) -> None:
        """Ends what runs."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _see(
        self,
        trial: Trial,
        query: RankQuery,
        lease: Lease[Served],
        ranking: Ranking | None,
        latency_s: float,
    ) -> None:
        traffic = self._revisions.traffic
        arm = arm_of(query.user_key, traffic.salt, traffic.percent)
        answered = traffic.canary if arm is Arm.CANARY else traffic.active
        if arm is Arm.REST or traffic.canary != trial.revision or lease.number != answered:
            return  # begun before the trial was, or compared with nobody
        user, group = _number_of(query), self._group_of(ranking)
        trial.add(arm, _observed(user, group, ranking, latency_s))
        self._judge_if_due(trial)

    def _group_of(self, ranking: Ranking | None) -> str:
        """The user's largest expert in the active revision's router."""
        seen = ranking.seen if ranking else None
        if seen is None or seen.vector is None:
            return ""
        with self._revisions.lease() as active:
            if seen.feature_version != active.value.space.feature_version:
                return ""
            return _largest(active.value.weaver.router, seen)

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
        self, trial: Trial, query: RankQuery, lease: Lease[Served], ranking: Ranking
    ) -> None:
        """One of a sample, one at a time, and only while nobody waits for the model."""
        if self._is_shadowing or lease.value.runner.num_waiting:
            return
        if self._random.random() * 100 >= trial.percent:
            return
        self._is_shadowing = True
        self._begin(self._compare(trial, query, ranking))

    async def _compare(self, trial: Trial, query: RankQuery, ranking: Ranking) -> None:
        try:
            with (
                suppress(UnknownRevisionError),
                self._revisions.lease(trial.revision) as lease,
            ):
                theirs = await _ranked_again(lease.value, query)
                group = self._group_of(ranking)
                pair = compare(
                    _number_of(query),
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
            self._is_shadowing = False

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _ranked_again(served: Served, query: RankQuery) -> Ranking | None:
    """What a revision makes of a query; None where it makes nothing of it."""
    own = replace(query, caller=_SHADOW_CALLER, allow_fallback=True, allow_partial=False)
    try:
        features = await served.features.get(own.user, SHADOW_TIME_S)
        fault = fault_of(features, served.space, len(own.user.candidates))
        deadline = time.monotonic() + SHADOW_TIME_S
        return await rank_with_features(served, own, features, fault, deadline)
    except Exception as error:
        logs.fault("shadow_unanswered", error)
        return None


def _observed(user: int, group: str, ranking: Ranking | None, latency_s: float) -> Observation:
    seen = ranking.seen if ranking else None
    is_exact = ranking is not None and ranking.step.fallback_level is FallbackLevel.EXACT_MIXTURE
    if seen is None or not is_exact or not seen.scored.any():
        non_finite = seen is not None and seen.non_finite
        failure = observe_failure(user, group, latency_s)
        return replace(failure, non_finite=non_finite)
    done = seen.scored
    return observe(
        user,
        group,
        latency_s,
        seen.scores[done],
        seen.tree_logits[done],
        seen.probabilities[done],
        reused=seen.reused,
    )


def _reply(ranking: Ranking | None) -> Reply:
    if ranking is None or ranking.seen is None:
        return Reply(0.0, None)
    failed = (
        ranking.step.fallback_level is not FallbackLevel.EXACT_MIXTURE
        and not ranking.seen.non_finite
    )
    scores, reused = None if failed else ranking.seen.scores, ranking.seen.reused
    return Reply(ranking.timing.model_s, scores, reused=reused)


def _number_of(query: RankQuery) -> int:
    return int(position_of(query.user_key, "user") * _MANTISSA)


def _largest(router: Router, seen: Seen) -> str:
    if seen.vector is None:
        return ""
    return router.experts[int(router.route(seen.vector).weights.argmax())]
