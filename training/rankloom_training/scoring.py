"""Scores log rows with a bundle in this process, by the code that a server runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import rankloom
from rankloom_adapters.bundle import Bundle
from rankloom_adapters.router import Fusion
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.loading import Hardware, load_decoder
from rankloom_engine.model import Decoder
from rankloom_engine.offline import score_all
from rankloom_engine.prompt import Prompt
from rankloom_features.catalogue import Item
from rankloom_features.events import Event
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_features.wire import MAX_CANDIDATES, MAX_EVENTS
from rankloom_ranker.loaded import load_bundle
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker
from rankloom_training.data import Dataset
from rankloom_training.side_by_side import SideBySide, copies
from rankloom_training.visibility import View, runs

K = TypeVar("K", bound=Hashable)
Step = Callable[[int, int], None]

MixedPrompt = tuple[Prompt, MixtureWeights]

MAX_BATCH_TOKENS = 4096
PART = 128  # prompts that one thread scores before it takes others


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Rows of one user that see the same events: one ranking call.

    ``rows``: (n,) indices into the log. ``seen``: indices of the visible events, oldest first. All
    requests share these arrays; events and items are made when they are asked for. ``asked``: the
    row at whose time the call is made.
    """

    dataset: Dataset
    rows: NDArray[np.int64]
    seen: NDArray[np.int64]
    asked: int

    def query(self) -> UserQuery:
        """The newest visible events, as many as a call may have, and the rows' items."""
        return UserQuery(None, self.events, self.items, at=self.time)

    @property
    def time(self) -> float:
        """When the call is made, seconds since 1970."""
        return float(self.dataset.log.time[self.asked])

    @property
    def events(self) -> tuple[Event, ...]:
        """The newest visible events, oldest first."""
        log, items = self.dataset.log, self.dataset.catalogue.items
        return tuple(
            Event(items[log.item[row]].item_id, bool(log.liked[row]), float(log.time[row]))
            for row in self.seen[-MAX_EVENTS:]
        )

    @property
    def history(self) -> tuple[rankloom.Event, ...]:
        """The same events, as a caller of the SDK gives them."""
        return tuple(
            rankloom.Event(each.item_id, each.liked, datetime.fromtimestamp(each.time or 0.0, UTC))
            for each in self.events
        )

    @property
    def items(self) -> tuple[Item, ...]:
        """The item of each row."""
        items = self.dataset.catalogue.items
        return tuple(items[item] for item in self.dataset.log.item[self.rows])


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRequest:
    """A request with its features and prompt. ``tree_logits``, ``collaborative``: (rows,).

    ``routing_vector``: what the router compares with its centroids.
    """

    rows: NDArray[np.int64]
    features: UserFeatures
    prompt: Prompt
    tree_logits: NDArray[np.float64]
    collaborative: NDArray[np.float32]
    routing_vector: NDArray[np.floating]


def requests_of(dataset: Dataset, view: View) -> list[Request]:
    """The view's rows as ranking calls; rows between two visible events share one."""
    log, visible, histories = dataset.log, view.visible(dataset.log), view.histories(dataset.log)
    calls = [
        slice(own.start + first, own.start + last)
        for own in runs(log.user[view.rows], histories.end)
        for first, last in _calls(log.item[view.rows[own]])
    ]
    first, end = histories.first, histories.end
    return [
        Request(
            dataset,
            view.rows[own],
            visible[first[own.start] : end[own.start]],
            int(view.ends[own.start]),
        )
        for own in calls
    ]


def _calls(items: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Splits consecutive rows into calls that name no item twice and are not too long."""
    first, named = 0, set[int]()
    for row, item in enumerate(items.tolist()):
        if item in named or len(named) == MAX_CANDIDATES:
            yield first, row
            first, named = row, set()
        named.add(item)
    yield first, len(items)


class BundleScorer:
    """Scores requests with one bundle, by the code that a server runs."""

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        """Raises the ValueErrors of load_bundle and load_decoder. ``device``: as torch has it."""
        self.loaded = load_bundle(bundle)
        self.decoder = load_decoder(self.loaded.engine_parts(), Hardware(device))
        self.ranker = Ranker(self.loaded)

    def prepare(self, user: UserQuery, rows: NDArray[np.int64]) -> PreparedRequest:
        """Features, prompt and tree logits of one request. ``rows``: of its candidates."""
        provider = self.loaded.provider
        features = provider.features(user)
        job = self.ranker.prepare(RankQuery("", user), features)
        indices = np.array([provider.catalogue.index(item.item_id) for item in user.candidates])
        collaborative = provider.scorer.logits(features.vector, indices)
        return PreparedRequest(
            rows,
            features,
            job.prompt,
            job.tree_logits(),
            collaborative,
            self.loaded.routing_vector(features),
        )

    def margins(
        self,
        prepared: Sequence[PreparedRequest],
        mixtures: Mapping[K, Sequence[MixtureWeights]],
        on_step: Step,
    ) -> dict[K, NDArray[np.float32]]:
        """(rows,) margins for each set of mixtures, one a request; rows in order.

        A request that has the same mixture in several sets goes through the model once.
        """
        distinct = {
            _key(request, mixture): (prepared[request].prompt, mixture)
            for each in mixtures.values()
            for request, mixture in enumerate(each)
        }
        margins = dict(zip(distinct, self._scored(list(distinct.values()), on_step), strict=True))
        return {
            name: np.concatenate(
                [margins[_key(request, mixture)] for request, mixture in enumerate(each)]
            )
            for name, each in mixtures.items()
        }

    def _scored(self, prompts: Sequence[MixedPrompt], on_step: Step) -> list[NDArray[np.float32]]:
        """(candidates,) margins of each prompt; passes are the same whatever the threads are."""
        parts = [prompts[at : at + PART] for at in range(0, len(prompts), PART)]
        jobs = [partial(_score, part) for part in parts]
        found = SideBySide(copies(self.decoder, len(jobs)), on_step).run(jobs, [*map(len, parts)])
        return list(chain.from_iterable(found))


def _score(
    prompts: Sequence[MixedPrompt], decoder: Decoder, on_step: Step
) -> list[NDArray[np.float32]]:
    return score_all(decoder, prompts, MAX_BATCH_TOKENS, on_step)


def _key(request: int, mixture: MixtureWeights) -> tuple[int, Fusion, bytes]:
    return request, mixture.fusion, mixture.values.tobytes()
