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
from itertools import islice
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
        backwards = (catalogue.get(each.item_id) for each in reversed(self.features.events))
        newest = islice(filter(None, backwards), self.job.prompt.num_events)
        return [*reversed([*newest]), catalogue.resolve(self.query.user.candidates[index])]


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
        alike[_mixture(engine, job)].append(index)
    known = {_mixture(engine, base): base.prompt.prefix}  # in the cache already
    asked = [
        (part, prompt)
        for mixture, indices in alike.items()
        for part, prompt in _shared(indices, jobs, known.get(mixture))
    ]
    found = np.full((len(jobs), len(base.prompt.candidates)), np.nan, dtype=np.float32)
    with ExitStack() as stack:
        requests = [
            stack.enter_context(engine.submit(prompt, jobs[part[0]].weights, options))
            for part, prompt in asked
        ]
        for (part, _), request in zip(asked, requests, strict=True):
            found[part] = (await request.result()).margins.reshape(len(part), -1)
    return found


def _mixture(engine: EngineHandle, job: RankingJob) -> bytes:
    """Equal for jobs whose prefixes can share keys and values."""
    return engine.over_slots(job.weights).values.tobytes()


def _shared(
    indices: list[int], jobs: Sequence[RankingJob], known: Segment | None
) -> list[tuple[list[int], Prompt]]:
    """What to ask about the jobs at these indices, which have one mixture: as one, or each alone.

    As one, what they begin with is read once, and the rest once for each candidate. ``known``: a
    prefix that the cache has for this mixture.
    """
    prompts = [jobs[index].prompt for index in indices]
    # The last one lacks the newest event, so it begins as all the others do up to their own gap.
    trunks = [each for each in (known, prompts[-1].prefix) if each is not None]

    def shared(trunk: Segment) -> int:
        return sum(common_length(trunk, prompt.prefix) for prompt in prompts)

    trunk = max(trunks, key=shared)
    joined = shared_prompt(prompts, trunk)
    num_read = joined.num_tokens - (len(trunk) if trunk is known else 0)
    if num_read <= sum(prompt.num_tokens for prompt in prompts):
        return [(indices, joined)]
    return [([index], prompt) for index, prompt in zip(indices, prompts, strict=True)]
