"""Swaps two bundles under callers that retrieve and recommend, and checks every answer.

The second bundle has one item more. All items that a user has not seen are asked for, so that each
answer shows which catalogue it was made from, and names a revision that must be of that catalogue
and active during the call.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from benchmarks.swap.checker import Timeline
from rankloom import AsyncClient, AsyncRolloutClient, RankloomError, RecommendOptions
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_ranker.loaded import load_bundle
from rankloom_training.added_items import AddedItems

if TYPE_CHECKING:
    from rankloom_training.data import Dataset

ADDED = Item("added-later", "Added Later", 2001)
ALL, MOST_RANKED = 1_000, 500
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RetrievalOutcome:
    """One answer. ``has_added``: the second bundle's item was in it."""

    sent: float
    received: float
    revision: int
    has_added: bool


@dataclass(slots=True)
class SwapCounts:
    """``mixed``: the catalogue is not that of the revision. ``stale``: it was not active."""

    swaps: int = 0
    answers: int = 0
    failed: int = 0
    mixed: int = 0
    stale: int = 0
    examples: list[str] = field(default_factory=list[str])

    def check(self, answer: RetrievalOutcome, base: int, timeline: Timeline) -> None:
        """Counts an answer and its faults."""
        self.answers += 1
        self.mixed += answer.has_added != (answer.revision != base)
        self.stale += not timeline.was_active(answer.revision, answer.sent, answer.received)

    @property
    def faults(self) -> int:
        return self.failed + self.mixed + self.stale


def with_added_item(bundle: Path, out: Path) -> Path:
    """Writes the bundle with one item more, and its events beside it."""
    loaded = load_bundle(open_bundle(bundle))
    catalogue = Catalogue((*loaded.catalogue.items, ADDED), loaded.catalogue.attribute_names)
    no_data = cast("Dataset", None)  # read for columns of the item table alone
    added = AddedItems(loaded, no_data, catalogue, np.zeros(1, np.int64))
    shutil.copytree(bundle, out)
    for part, data in added.bundle_parts().items():
        (out / part).write_bytes(data)
    seal(out, loaded.bundle.metadata)
    copy_events(events_beside(bundle), events_beside(out))
    return out


async def swap_under_calls(
    ranking: str, rollout: str, other: Path, users: list[str], swaps: int, in_flight: int = 4
) -> SwapCounts:
    """Stages ``other``, promotes it, rolls back and retires it, ``swaps`` times."""
    async with (
        AsyncClient(ranking, timeout_s=TIMEOUT_S) as client,
        AsyncRolloutClient(rollout) as operator,
    ):
        base = (await operator.list()).active
        timeline, counts, outcomes = Timeline(base), SwapCounts(), list[RetrievalOutcome]()
        callers = [
            asyncio.create_task(_call(client, users[n:] + users[:n], outcomes, counts))
            for n in range(in_flight)
        ]
        try:
            for _ in range(swaps):
                await _swap(operator, other, base, timeline, outcomes)
                counts.swaps += 1
                for answer in outcomes:
                    counts.check(answer, base, timeline)
                outcomes.clear()
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
    return counts


async def _swap(
    operator: AsyncRolloutClient,
    other: Path,
    base: int,
    timeline: Timeline,
    outcomes: list[RetrievalOutcome],
) -> None:
    new = (await operator.stage(str(other), expected=base)).revision
    asked = time.monotonic()
    await operator.promote(new, expected=base, without_gates=True, reason="a benchmark")
    timeline.switched(new, asked, time.monotonic())
    await _answers(outcomes, new)
    asked = time.monotonic()
    await operator.roll_back(new, expected=new, reason="a benchmark")
    timeline.switched(base, asked, time.monotonic())
    await _answers(outcomes, base)
    await operator.retire(new, expected=base, reason="a benchmark")


async def _answers(outcomes: list[RetrievalOutcome], revision: int, num: int = 4) -> None:
    """Waits until a revision has given some answers to calls that began after this one."""
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT_S):
        while sum(o.revision == revision and o.sent > began for o in outcomes) < num:
            await asyncio.sleep(0.005)


async def _call(
    client: AsyncClient, users: list[str], outcomes: list[RetrievalOutcome], counts: SwapCounts
) -> None:
    """Retrieves and recommends in turns, without a pause."""
    options = RecommendOptions(retrieve_k=MOST_RANKED)
    for turn, user in enumerate(itertools.cycle(users)):
        sent = time.monotonic()
        try:
            if turn % 4:  # a recommendation is as much work as many retrievals
                found = await client.retrieve(ALL, user=user)
                ids, revision = found.item_ids, found.revision
            else:
                answer = await client.recommend(MOST_RANKED, user=user, options=options)
                ids = tuple(item.item_id for item in answer.items)
                revision = answer.ranking.revision
        except RankloomError as error:
            counts.failed += 1
            counts.examples.append(repr(error))
            continue
        received = time.monotonic()
        outcomes.append(RetrievalOutcome(sent, received, revision.number, ADDED.item_id in ids))
