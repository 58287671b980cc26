"""Scores log rows with a bundle in this process, the way a server does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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

    @torch.inference_mode()
    def margins(
        self,
        prepared: Sequence[Prepared],
        weights: NDArray[np.float32],
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[NDArray[np.float32]]:
        """Each request's margins with its row of expert weights (requests, K)."""
        rows = [(place, row) for place, one in enumerate(prepared) for row in one.prompt.rows]
        found: dict[int, list[NDArray[np.float32]]] = {n: [] for n in range(len(prepared))}
        done = 0
        # Longest first, so that rows of like length share a batch; a request's own
        # rows keep their order because the sort is stable and all but its last are equal.
        for batch in _by_tokens(sorted(rows, key=lambda pair: -len(pair[1]))):
            packed = collate([row for _, row in batch])
            own = torch.from_numpy(weights[[place for place, _ in batch]])
            margins = self.engine.decoder.mixed_margins(packed, own).numpy()
            ends = np.cumsum([len(row.verdict_at) for _, row in batch])[:-1]
            for (place, _), part in zip(batch, np.split(margins, ends), strict=True):
                found[place].append(part)
            done += len(batch)
            on_step(done, len(rows))
        return [np.concatenate(found[place]) for place in range(len(prepared))]


def _by_tokens(
    rows: Sequence[tuple[int, PackedRow]],
) -> Iterator[Sequence[tuple[int, PackedRow]]]:
    """Runs of rows, longest first, within the token budget."""
    at = 0
    while at < len(rows):
        size = max(1, MAX_BATCH_TOKENS // len(rows[at][1]))
        yield rows[at : at + size]
        at += size
