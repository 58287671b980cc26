"""Swaps two bundles under callers that retrieve and recommend, and checks every answer.

The second bundle has one item more, other counts of the items and other experts, so that both its
index and its model answer otherwise. What each bundle answers to each call is taken while nothing
is swapped. Under swaps, an answer must be that of the revision that it names, item by item and
score by score, and this one must have been active during the call.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import safetensors.numpy

from benchmarks.common.server_process import serving
from benchmarks.common.timing import progress
from benchmarks.swap.checker import MIN_DIFFERENCE, TOLERANCE, Timeline
from rankloom import AsyncClient, AsyncRolloutClient, RankloomError, RecommendOptions
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_adapters.expert import WEIGHTS_FILE
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside
from rankloom_ranker.loaded import load_bundle
from rankloom_training.added_items import AddedItems
from rankloom_training.user_events import events_of_bundle

if TYPE_CHECKING:
    from rankloom_training.data import Dataset

ADDED: Final = Item("added-later", "Added Later", 2001)
RETRIEVED, RANKED = 20, 10
USERS: Final = 16
IN_FLIGHT: Final = 4
TIMEOUT_S: Final = 60.0
SCALE: Final = 1.7  # of the second bundle's experts
REASON: Final = "a benchmark"

Scores = Mapping[str, float]  # by item id


class AlikeBundlesError(Exception):
    """Both bundles answer a call alike, so that an answer would not show whose it is."""


@dataclass(frozen=True, slots=True)
class RetrievalCall:
    """``recommends``: whether the retrieved items are ranked too."""

    user: str
    recommends: bool


@dataclass(frozen=True, slots=True)
class RetrievalOutcome:
    """One answer, and when."""

    call: RetrievalCall
    sent: float
    received: float
    revision: int
    scores: Scores


@dataclass(frozen=True, slots=True)
class KnownAnswers:
    """What each bundle answers, to calls for which they retrieve other items.

    ``base``: the revision that is active at first.
    """

    base: int
    of_base: Mapping[RetrievalCall, Scores]
    of_other: Mapping[RetrievalCall, Scores]

    def has(self, answer: RetrievalOutcome) -> bool:
        """Whether it is what the bundle of the answer's revision answers."""
        known = self.of_base if answer.revision == self.base else self.of_other
        return _differ(known[answer.call], answer.scores) <= TOLERANCE


@dataclass(slots=True)
class SwapCounts:
    """``mixed``: not what the revision's bundle answers. ``stale``: it was not active."""

    swaps: int = 0
    retrievals: int = 0
    recommendations: int = 0
    failed: int = 0
    mixed: int = 0
    stale: int = 0
    examples: list[str] = field(default_factory=list[str])

    def check(self, answer: RetrievalOutcome, known: KnownAnswers, timeline: Timeline) -> None:
        """Counts an answer and its faults."""
        self.recommendations += answer.call.recommends
        self.retrievals += not answer.call.recommends
        is_mixed = not known.has(answer)
        is_stale = not timeline.was_active(answer.revision, answer.sent, answer.received)
        self.mixed += is_mixed
        self.stale += is_stale
        if is_mixed or is_stale:
            self.note(repr(answer))

    def note(self, example: str) -> None:
        """Keeps a few faults to look at."""
        if len(self.examples) < 10:
            self.examples.append(example)

    @property
    def faults(self) -> int:
        return self.failed + self.mixed + self.stale


def swap_study(bundle: Path, folder: Path, swaps: int) -> SwapCounts:
    """Swaps under calls to a server in a process of its own; ``folder``: for what is written.

    Raises AlikeBundlesError.
    """
    other = answering_otherwise(bundle, folder / "other")
    with events_of_bundle(bundle) as store:
        users = list(itertools.islice(store.users(), USERS))
    calls = [RetrievalCall(user, recommends) for user in users for recommends in (False, True)]
    with serving(bundle, folder / "state", threads=1, cache_mib=16) as server:
        return asyncio.run(_swap_under_calls(server.ranking, server.rollout, other, calls, swaps))


def answering_otherwise(bundle: Path, out: Path) -> Path:
    """Writes the second bundle, and the events of the first one beside it."""
    loaded = load_bundle(open_bundle(bundle))
    catalogue = Catalogue((*loaded.catalogue.items, ADDED), loaded.catalogue.attribute_names)
    no_data = cast("Dataset", None)  # read for columns of the item table alone
    added = AddedItems(loaded, no_data, catalogue, np.zeros(1, np.int64))
    shutil.copytree(bundle, out)
    for part, data in added.bundle_parts().items():
        (out / part).write_bytes(data)
    (out / parts.ITEM_INDEX).unlink()  # it is of the former counts
    counts = safetensors.numpy.load((out / parts.ITEM_STATISTICS).read_bytes())
    counts["rows"] = np.square(counts["rows"].max() - counts["rows"])
    (out / parts.ITEM_STATISTICS).write_bytes(safetensors.numpy.save(counts))
    for file in out.glob(f"experts/*/{WEIGHTS_FILE}"):
        tensors = safetensors.numpy.load(file.read_bytes())
        scaled = {name: np.asarray(each * np.float32(SCALE)) for name, each in tensors.items()}
        file.write_bytes(safetensors.numpy.save(scaled))
    seal(out, loaded.bundle.metadata)
    copy_events(events_beside(bundle), events_beside(out))
    return out


async def _swap_under_calls(
    ranking: str, rollout: str, other: Path, calls: list[RetrievalCall], swaps: int
) -> SwapCounts:
    async with (
        AsyncClient(ranking, timeout_s=TIMEOUT_S) as client,
        AsyncRolloutClient(rollout) as operator,
    ):
        known = await _known_answers(client, operator, other, calls)
        timeline, counts = Timeline(known.base), SwapCounts()
        outcomes: list[RetrievalOutcome] = []
        told = list(known.of_base)
        shifted = [told[n:] + told[:n] for n in range(IN_FLIGHT)]
        callers = [asyncio.create_task(_call(client, own, outcomes, counts)) for own in shifted]
        try:
            for swap in range(swaps):
                if swap % 20 == 0:
                    progress(f"swap {swap} of {swaps}")
                await _swap(operator, other, timeline, outcomes, known.base)
                counts.swaps += 1
                for answer in outcomes:
                    counts.check(answer, known, timeline)
                outcomes.clear()
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
    return counts


async def _known_answers(
    client: AsyncClient, operator: AsyncRolloutClient, other: Path, calls: list[RetrievalCall]
) -> KnownAnswers:
    """What both bundles answer, one after the other, to what they answer otherwise.

    Raises AlikeBundlesError.
    """
    base = (await operator.list()).active
    of_base = await _all_answers(client, calls)
    new = (await operator.stage(str(other), expected=base)).revision
    await operator.promote(new, expected=base, without_gates=True, reason=REASON)
    of_other = await _all_answers(client, calls)
    of_base = {
        call: of_base[call] for call in calls if of_base[call].keys() != of_other[call].keys()
    }
    if len({call.recommends for call in of_base}) < 2:
        raise AlikeBundlesError("both retrieve the same items for all users")
    await _require_other_scores(client, of_base)
    await operator.roll_back(new, expected=new, reason=REASON)
    await _require_other_scores(client, {call: of_other[call] for call in of_base})
    await operator.retire(new, expected=base, reason=REASON)
    return KnownAnswers(base, of_base, of_other)


async def _all_answers(
    client: AsyncClient, calls: list[RetrievalCall]
) -> dict[RetrievalCall, Scores]:
    return {call: (await _answer(client, call)).scores for call in calls}


async def _require_other_scores(
    client: AsyncClient, theirs: Mapping[RetrievalCall, Scores]
) -> None:
    """The active model must score what the other bundle recommends otherwise than that does."""
    for call, scores in theirs.items():
        if call.recommends:
            items = [item_id for item_id in scores if item_id != ADDED.item_id]
            ranking = await client.rank(items, user=call.user)
            ours = {item.item_id: item.score for item in ranking.items}
            if _differ({item: scores[item] for item in items}, ours) < MIN_DIFFERENCE:
                raise AlikeBundlesError(f"both score the same for {call}")


def _differ(one: Scores, other: Scores) -> float:
    """The largest difference of two answers' scores; infinite for other items."""
    if one.keys() != other.keys():
        return np.inf
    return max(abs(one[item_id] - other[item_id]) for item_id in one)


async def _swap(
    operator: AsyncRolloutClient,
    other: Path,
    timeline: Timeline,
    outcomes: list[RetrievalOutcome],
    base: int,
) -> None:
    """Stages ``other``, promotes it, rolls back and retires it; each gives some answers."""
    new = (await operator.stage(str(other), expected=base)).revision
    asked = time.monotonic()
    await operator.promote(new, expected=base, without_gates=True, reason=REASON)
    timeline.switched(new, asked, time.monotonic())
    await _answers(outcomes, new)
    asked = time.monotonic()
    await operator.roll_back(new, expected=new, reason=REASON)
    timeline.switched(base, asked, time.monotonic())
    await _answers(outcomes, base)
    await operator.retire(new, expected=base, reason=REASON)


async def _answers(outcomes: list[RetrievalOutcome], revision: int, num: int = 4) -> None:
    """Waits until a revision has given some answers to calls that began after this one."""
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT_S):
        while sum(o.revision == revision and o.sent > began for o in outcomes) < num:
            await asyncio.sleep(0.005)


async def _call(
    client: AsyncClient,
    calls: list[RetrievalCall],
    outcomes: list[RetrievalOutcome],
    counts: SwapCounts,
) -> None:
    """Makes one call after the other, without a pause."""
    for call in itertools.cycle(calls):
        try:
            outcomes.append(await _answer(client, call))
        except RankloomError as error:
            counts.failed += 1
            counts.note(repr(error))


async def _answer(client: AsyncClient, call: RetrievalCall) -> RetrievalOutcome:
    sent = time.monotonic()
    if call.recommends:
        options = RecommendOptions(retrieve_k=RANKED)
        found = await client.recommend(RANKED, user=call.user, options=options)
        revision = found.ranking.revision.number
        scores = {item.item_id: item.score for item in found.items}
    else:
        near = await client.retrieve(RETRIEVED, user=call.user)
        revision = near.revision.number
        scores = {item.item_id: item.score for item in near.items}
    return RetrievalOutcome(call, sent, time.monotonic(), revision, scores)
