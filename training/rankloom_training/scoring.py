"""Scores log rows with a bundle in this process, by the code that a server runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.bundle import Bundle
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.loading import load_decoder
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
from rankloom_training.visibility import View

K = TypeVar("K", bound=Hashable)
Step = Callable[[int, int], None]
Rows = NDArray[np.float32]

MAX_BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Rows of one user that see the same events: one ranking call.

    ``rows``: (n,) indices into the log. ``events``: the visible ones, oldest first.
    """

    rows: NDArray[np.int64]
    events: tuple[Event, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRequest:
    """A request with its features and prompt. ``tree_logits``, ``collaborative``: (rows,)."""

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
        for row in seen[-MAX_EVENTS:]
    )
    return Request(rows, events, tuple(items[item] for item in log.item[rows]))


class BundleScorer:
    """Scores requests with one bundle, by the code that a server runs."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises the ValueErrors of load_bundle and load_decoder."""
        self.loaded = load_bundle(bundle)
        self.decoder = load_decoder(self.loaded.engine_parts())
        self.ranker = Ranker(self.loaded)

    def prepare(self, request: Request) -> PreparedRequest:
        """Features, prompt and tree logits of one request."""
        provider = self.loaded.provider
        user = UserQuery(None, request.events, request.items)
        features = provider.features(user)
        job = self.ranker.prepare(RankQuery("", user), features)
        indices = np.array([provider.catalogue.index(item.item_id) for item in request.items])
        collaborative = provider.scorer.logits(features.vector, indices)
        return PreparedRequest(request.rows, features, job.prompt, job.tree_logits(), collaborative)

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
        scored = score_all(self.decoder, list(distinct.values()), MAX_BATCH_TOKENS, on_step)
        margins = dict(zip(distinct, scored, strict=True))
        return {
            name: np.concatenate(
                [margins[request, row.tobytes()] for request, row in enumerate(rows)]
            )
            for name, rows in weights.items()
        }
