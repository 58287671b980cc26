"""Scores log rows with a bundle in this process, the way a server does it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.loading import load_engine
from rankloom_engine.offline import score_all
from rankloom_engine.prompt import Prompt, PromptCandidate, PromptEvent
from rankloom_features.catalogue import Item
from rankloom_features.events import Event
from rankloom_features.loading import provider_from_bytes
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_features.ranker import TreeRanker
from rankloom_training.data import Dataset
from rankloom_training.visibility import View

K = TypeVar("K", bound=Hashable)
Step = Callable[[int, int], None]
Rows = NDArray[np.float32]

MAX_BATCH_TOKENS = 4096
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
class PreparedRequest:
    """A request with all that the model needs. ``tree_logits``, ``collaborative``: (rows,)."""

    rows: NDArray[np.int64]
    features: UserFeatures
    prompt: Prompt
    tree_logits: NDArray[np.float64]
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
            item_vectors=bundle.read(parts.ITEM_VECTORS),
            item_statistics=bundle.read(parts.ITEM_STATISTICS),
        )
        self._ranker = TreeRanker(bundle.read(parts.TREES))

    def prepare(self, request: Request) -> PreparedRequest:
        """Features, prompt and tree logit of one request."""
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
        weaver = self.engine.weaver
        past = weaver.past(events)
        prompt = weaver.prompt(past, features.vector, candidates, features.tabular)
        places = np.array([candidate.index for candidate in candidates])
        return PreparedRequest(
            request.rows,
            features,
            prompt,
            self._ranker.logits(features.tabular),
            self.provider.scorer.logits(features.vector, places),
        )

    def margins(
        self, prepared: Sequence[PreparedRequest], weights: Mapping[K, Rows], on_step: Step
    ) -> dict[K, NDArray[np.float32]]:
        """(rows,) margins for each set of weights (requests, experts), rows in order.

        A request that has the same weights in several sets goes through the model once.
        """
        distinct = {
            (request, row.tobytes()): (prepared[request].prompt, MixtureWeights(row))
            for rows in weights.values()
            for request, row in enumerate(rows)
        }
        scored = score_all(self.engine.decoder, list(distinct.values()), MAX_BATCH_TOKENS, on_step)
        margins = dict(zip(distinct, scored, strict=True))
        return {
            name: np.concatenate(
                [margins[request, row.tobytes()] for request, row in enumerate(rows)]
            )
            for name, rows in weights.items()
        }
