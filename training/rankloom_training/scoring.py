"""Scores log rows with a bundle in this process, the way a server does it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle
from rankloom_engine.loading import load_engine
from rankloom_engine.packing import PackedRow, collate
from rankloom_engine.prompt import Prompt, PromptCandidate, PromptEvent
from rankloom_features.catalogue import Item
from rankloom_features.events import Event, history_of
from rankloom_features.loading import provider_from_bytes
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_features.ranker import TreeRanker
from rankloom_training.data import Dataset
from rankloom_training.visibility import View

K = TypeVar("K", bound=Hashable)
Step = Callable[[int, int], None]
Weights = NDArray[np.float32]

MAX_BATCH_TOKENS = 8192
# What one call may bring (the server's limits), here too so that both score the same.
MAX_CANDIDATES, MAX_HISTORY = 500, 1000


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Rows of one user that see the very same events: one ranking call.

    ``rows``: (n,) places in the log. ``events``: what they see, oldest first.
    """

    rows: NDArray[np.int64]
    events: tuple[Event, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A request with all that the model needs. ``prior``, ``collaborative``: (rows,)."""

    rows: NDArray[np.int64]
    features: UserFeatures
    prompt: Prompt
    prior: NDArray[np.float64]
    collaborative: NDArray[np.float32]


def requests_of(dataset: Dataset, view: View) -> list[Request]:
    """The view's rows as ranking calls; rows between two visible events share one."""
    requests: list[tuple[list[int], NDArray[np.int64]]] = []
    for row in view.rows:
        seen = view.visible_before(dataset.log, int(row))
        last = requests[-1] if requests else None
        if last is not None and len(last[1]) == len(seen) and _fits(dataset, last[0], int(row)):
            last[0].append(int(row))
        else:
            requests.append(([int(row)], seen))
    return [_request(dataset, np.array(rows), seen) for rows, seen in requests]


def _fits(dataset: Dataset, rows: Sequence[int], row: int) -> bool:
    """Whether one call can ask for ``row`` beside ``rows``: one user, no item twice."""
    log = dataset.log
    items = {int(log.item[other]) for other in rows}
    same_user = log.user[rows[0]] == log.user[row]
    return bool(same_user and len(rows) < MAX_CANDIDATES and int(log.item[row]) not in items)


def _request(dataset: Dataset, rows: NDArray[np.int64], seen: NDArray[np.int64]) -> Request:
    log, items = dataset.log, dataset.catalogue.items
    events = tuple(
        Event(items[log.item[row]].item_id, bool(log.liked[row]), float(log.time[row]))
        for row in seen[-MAX_HISTORY:]
    )
    return Request(rows, events, tuple(items[item] for item in log.item[rows]))


class BundleScorer:
    """A bundle's parts, loaded as a server loads them."""

    def __init__(self, bundle: Bundle) -> None:
        self.engine = load_engine(bundle)
        self.provider = provider_from_bytes(
            catalogue=bundle.read(parts.CATALOGUE),
            events=bundle.read(parts.EVENTS),
            encoder=bundle.read(parts.ENCODER),
            item_statistics=bundle.read(parts.ITEM_STATISTICS),
        )
        self._ranker = TreeRanker([bundle.read(part) for part in parts.RANKERS])

    def prepare(self, request: Request) -> Prepared:
        """Features, prompt and prior of one request."""
        catalogue = self.provider.catalogue
        features = self.provider.features(UserQuery(None, request.events, request.items))
        events = [
            PromptEvent(catalogue.items[place], place, event.liked)
            for event in features.events
            for place in [catalogue.index(event.item_id)]
        ]
        candidates = [
            PromptCandidate(catalogue.resolve(item), catalogue.index(item.item_id))
            for item in request.items
        ]
        prompt = self.engine.weaver.prompt(features.vector, events, candidates, features.tabular)
        places = np.array([candidate.index for candidate in candidates])
        history = history_of(features.events, catalogue)
        _, logits = self.provider.encoder.encode_and_score([history], places[None] + 1)
        return Prepared(
            request.rows,
            features,
            prompt,
            self._ranker.logits(features.tabular),
            logits[0],
        )

    def margins(
        self, prepared: Sequence[Prepared], weights: Mapping[K, Weights], on_step: Step
    ) -> dict[K, NDArray[np.float32]]:
        """(rows,) margins for each set of weights (requests, experts), rows in order.

        A request that has the same weights in several sets goes through the model once.
        """
        places: dict[tuple[int, bytes], int] = {}
        jobs: list[tuple[PackedRow, Weights]] = []
        for rows in weights.values():
            for request, row in enumerate(rows):
                if places.setdefault((request, row.tobytes()), len(jobs)) == len(jobs):
                    jobs += [(packed, row) for packed in prepared[request].prompt.rows]
        found = self._run(jobs, on_step)

        def of(request: int, row: Weights) -> list[NDArray[np.float32]]:
            first = places[request, row.tobytes()]
            return found[first : first + len(prepared[request].prompt.rows)]

        return {
            name: np.concatenate([m for n, row in enumerate(rows) for m in of(n, row)])
            for name, rows in weights.items()
        }

    @torch.inference_mode()
    def _run(
        self, jobs: Sequence[tuple[PackedRow, Weights]], on_step: Step
    ) -> list[NDArray[np.float32]]:
        """Margins of each packed row, in order; rows of like length share a batch."""
        found: dict[int, NDArray[np.float32]] = {}
        for batch in _by_tokens([len(packed) for packed, _ in jobs]):
            packed = collate([jobs[place][0] for place in batch])
            weights = torch.from_numpy(np.stack([jobs[place][1] for place in batch]))
            margins = self.engine.decoder.mixed_margins(packed, weights).numpy()
            ends = np.cumsum([len(jobs[place][0].verdict_at) for place in batch])[:-1]
            found |= dict(zip(batch, np.split(margins, ends), strict=True))
            on_step(len(found), len(jobs))
        return [found[place] for place in range(len(jobs))]


def _by_tokens(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows, longest first, in runs within the token budget."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    at = 0
    while at < len(order):
        size = max(1, MAX_BATCH_TOKENS // lengths[order[at]])
        yield order[at : at + size]
        at += size
