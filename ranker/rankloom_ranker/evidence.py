"""Evidence by ablation: what each event in the prompt did to a score.

For each event, the score is computed again as if it had never been in the user's history: vector,
mixture, tabular features, trees and prompt. Variants with one mixture are packed into one prompt,
in which what stands before the missing event is read once.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.packing import Segment
from rankloom_engine.pool import EngineHandle
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Kind
from rankloom_engine.sequence import RequestOptions
from rankloom_engine.shared_prefix import common_length, shared_prompt
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.events import Event
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_ranker.answers import EventEvidence, Scores
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker, RankingJob

EVIDENCE_SHARE = 0.5  # of the time left; words and verdict have the rest


class Ablations(Protocol):
    """Where ablated features come from."""

    async def __call__(self, query: UserQuery) -> tuple[UserFeatures, ...]:
        """The features without each of the ``query.ablate_newest`` last events.

        Empty where they cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ScoredQuery:
    """A query, and what was computed for its candidates. ``job`` has them in their own order."""

    query: RankQuery
    features: UserFeatures
    job: RankingJob
    scores: Scores

    def prompt_items(self, catalogue: Catalogue, index: int) -> list[Item]:
        """The items of the events in the prompt, oldest first, and the candidate's."""
        known = [item for each in self.features.events if (item := catalogue.get(each.item_id))]
        first = len(known) - self.job.prompt.num_events
        return [*known[first:], catalogue.resolve(self.query.user.candidates[index])]


async def evidence_of(
    ranker: Ranker,
    engine: EngineHandle,
    scored: ScoredQuery,
    ablations: Ablations,
    max_events: int | None,
    deadline: float,
) -> tuple[tuple[EventEvidence, ...], ...]:
    """The evidence for each candidate: of the newest events in the prompt, oldest first.

    ``max_events``: of at most so many; None: of all. What cannot be scored in a share of the
    time left is left out. Raises EngineFailedError or EngineClosedError.
    """
    num_events = scored.job.prompt.num_events
    if max_events is not None:
        num_events = min(num_events, max_events)
    ablated: tuple[UserFeatures, ...] = ()
    if num_events:
        ablated = await ablations(replace(scored.query.user, ablate_newest=num_events))
    # Between the two calls for features, the history may have grown.
    if not ablated or ablated[-1].events != scored.features.events[:-1]:
        return tuple(() for _ in scored.query.user.candidates)
    now = time.monotonic()
    until = now + EVIDENCE_SHARE * (deadline - now)
    influence = await _influences(ranker, engine, scored, ablated, until)
    events = scored.features.events[-len(ablated) :]
    return tuple(_evidence(events, column) for column in influence.T)


def _evidence(events: Sequence[Event], influence: NDArray[np.float64]) -> tuple[EventEvidence, ...]:
    rows = zip(events, influence.tolist(), strict=True)
    return tuple(
        EventEvidence(event.item_id, event.liked, value)
        for event, value in rows
        if not np.isnan(value)
    )


async def _influences(
    ranker: Ranker,
    engine: EngineHandle,
    scored: ScoredQuery,
    ablated: Sequence[UserFeatures],
    deadline: float,
) -> NDArray[np.float64]:
    """(events, candidates) score with, less score without each event; NaN where time ran out."""
    jobs = await asyncio.to_thread(_prepared, ranker, scored.query, ablated)
    options = RequestOptions(deadline, scored.query.caller, partial=True, kind=Kind.EVIDENCE)
    margins = await _margins(engine, jobs, scored.job, options)
    tree_logits = np.stack([job.tree_logits() for job in jobs])
    return scored.scores.score - ranker.scores(margins, tree_logits).score


def _prepared(
    ranker: Ranker, query: RankQuery, ablated: Iterable[UserFeatures]
) -> list[RankingJob]:
    jobs = [ranker.prepare(query, features) for features in ablated]
    for job in jobs:
        job.tree_logits()
    return jobs


async def _margins(
    engine: EngineHandle, jobs: Sequence[RankingJob], base: RankingJob, options: RequestOptions
) -> NDArray[np.float32]:
    """(jobs, candidates) margins, NaN where time ran out."""
    alike: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        alike[job.weights.values.tobytes()].append(index)
    found = np.full((len(jobs), len(base.prompt.candidates)), np.nan, dtype=np.float32)
    with ExitStack() as stack:
        requests = [
            stack.enter_context(
                engine.submit(
                    _joined([jobs[index] for index in indices], base),
                    jobs[indices[0]].weights,
                    options,
                )
            )
            for indices in alike.values()
        ]
        for indices, request in zip(alike.values(), requests, strict=True):
            found[indices] = (await request.result()).margins.reshape(len(indices), -1)
    return found


def _joined(jobs: Sequence[RankingJob], base: RankingJob) -> Prompt:
    """The prompts of jobs with one mixture as one, behind what they share most of."""
    prompts = [job.prompt for job in jobs]
    # The last one lacks the newest event, so it begins as all the others do up to their own gap.
    trunks = [prompts[-1].prefix]
    if np.array_equal(base.weights.values, jobs[0].weights.values):
        trunks.insert(0, base.prompt.prefix)  # in the cache already

    def shared(trunk: Segment) -> int:
        return sum(common_length(trunk, prompt.prefix) for prompt in prompts)

    return shared_prompt(prompts, max(trunks, key=shared))
