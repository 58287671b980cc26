"""Ranks every item that a user does not know yet: the test of a log of likes alone.

Metrics over sampled negatives may order methods otherwise than a ranking of all items does
(Krichene and Rendle, KDD 2020), so nothing is sampled here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.expert_bank import MixtureWeights
from rankloom_features.catalogue import Item
from rankloom_features.provider import UserQuery
from rankloom_features.wire import MAX_CANDIDATES
from rankloom_training.data import Dataset, Split
from rankloom_training.metrics import Estimate, mean_over_users, ndcg
from rankloom_training.scoring import BundleScorer, Request, Step

TOP = 10
SERVED = "served"
Scores = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class TopMetrics:
    """Means over users of the first ten items. ``hit``: one of them is liked. ``recall``: share of
    the liked items among them.
    """

    ndcg10: Estimate
    hit10: Estimate
    recall10: Estimate


@dataclass(frozen=True, slots=True)
class AllItemsReport:
    """``metrics``: of each score. ``served_minus``: NDCG@10 of the served score less another's."""

    num_users: int
    num_items: int
    metrics: Mapping[str, TopMetrics]
    served_minus: Mapping[str, Estimate]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """What one user does not know before the test rows.

    ``history``: the call's events. ``items``: (n,) catalogue indices. ``liked``: (n,) whether the
    user likes the item in the test rows.
    """

    history: Request
    items: NDArray[np.int64]
    liked: NDArray[np.bool_]

    def queries(self) -> list[UserQuery]:
        """The items in as few calls as a server takes them."""
        events, items = self.history.events, self.history.dataset.catalogue.items
        calls = np.split(self.items, range(MAX_CANDIDATES, len(self.items), MAX_CANDIDATES))
        return [UserQuery(None, events, _picked(items, call)) for call in calls]


def unseen_items(dataset: Dataset, users: NDArray[np.int64]) -> Iterator[Unseen]:
    """For each of the users who like an item in the test rows that they did not know before."""
    log, every = dataset.log, np.arange(len(dataset.catalogue))
    for user in users:
        own = np.flatnonzero(log.happened & (log.user == user))
        is_test = log.split[own] == Split.TEST
        known = np.isin(every, log.item[own[~is_test]])
        liked = np.isin(every, log.item[own[is_test & log.liked[own]]])
        if (liked & ~known).any():
            history = Request(dataset, own[is_test], own[~is_test])
            yield Unseen(history, every[~known], liked[~known])


def rank_all_items(
    scorer: BundleScorer, dataset: Dataset, users: NDArray[np.int64], on_step: Step
) -> AllItemsReport | None:
    """Ranks for each of ``users`` all items that the user does not know, in one list.

    None if none of them likes such an item in the test rows.
    """
    cases = list(unseen_items(dataset, users))
    found: list[dict[str, tuple[float, float, float]]] = []
    for case in cases:
        scores = _scores(scorer, case)
        found.append({name: _top_metrics(case.liked, score) for name, score in scores.items()})
        on_step(len(found), len(cases))
    return _report(found, len(dataset.catalogue)) if found else None


def _scores(scorer: BundleScorer, case: Unseen) -> Scores:
    """(n,) of each score for the case's items."""
    prepared = [scorer.prepare(query, case.history.rows) for query in case.queries()]
    weights = scorer.loaded.router.route(prepared[0].routing_vector).weights
    mixtures = {SERVED: [MixtureWeights(weights)] * len(prepared)}
    margins = scorer.margins(prepared, mixtures, lambda num_scored, num_prompts: None)[SERVED]
    tree_logits = np.concatenate([one.tree_logits for one in prepared])
    return {
        SERVED: tree_logits + margins,
        "lightgbm": tree_logits,
        "cf": np.concatenate([one.collaborative for one in prepared]),
        "popularity": scorer.loaded.features.popularity[case.items],
    }


def _top_metrics(
    liked: NDArray[np.bool_], score: NDArray[np.floating]
) -> tuple[float, float, float]:
    """NDCG, hit and recall of the first items."""
    hits = int(liked[np.argsort(-score, kind="stable")[:TOP]].sum())
    return ndcg(liked, score, TOP), float(hits > 0), hits / int(liked.sum())


def _report(
    found: Sequence[Mapping[str, tuple[float, float, float]]], num_items: int
) -> AllItemsReport:
    """``found``: the metrics of each score, for each user."""
    values = {name: np.array([one[name] for one in found]) for name in found[0]}
    ndcgs = {name: value[:, 0] for name, value in values.items()}
    return AllItemsReport(
        num_users=len(found),
        num_items=num_items,
        metrics={
            name: TopMetrics(*(mean_over_users(column.tolist()) for column in value.T))
            for name, value in values.items()
        },
        served_minus={
            name: mean_over_users((ndcgs[SERVED] - other).tolist())
            for name, other in ndcgs.items()
            if name != SERVED
        },
    )


def _picked(items: Sequence[Item], indices: NDArray[np.int64]) -> tuple[Item, ...]:
    return tuple(items[index] for index in indices)
