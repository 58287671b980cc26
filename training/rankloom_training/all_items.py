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
PREFILTER = 50  # so many of a list are scored by the language model, as ``prefilter`` does
LIKES_EACH = 4  # likes of a user that are looked for as they come, at most
SEED = 0  # of which ones
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
    """What one user does not know at some time of the test rows.

    ``history``: the call's events. ``items``: (n,) catalogue indices. ``liked``: (n,) whether the
    item is one of those that the user likes afterwards.
    """

    history: Request
    items: NDArray[np.int64]
    liked: NDArray[np.bool_]

    def query(self, items: NDArray[np.int64]) -> UserQuery:
        """About some of the items."""
        given = self.history.dataset.catalogue.items
        return UserQuery(None, self.history.events, _picked(given, items), at=self.history.time)

    def queries(self) -> list[UserQuery]:
        """The items in as few calls as a server takes them."""
        calls = np.split(self.items, range(MAX_CANDIDATES, len(self.items), MAX_CANDIDATES))
        return list(map(self.query, calls))


def unseen_items(dataset: Dataset, users: NDArray[np.int64]) -> Iterator[Unseen]:
    """For each of the users who like an item in the test rows that they did not know before."""
    log = dataset.log
    for user in users:
        own = np.flatnonzero(log.happened & (log.user == user))
        is_test = log.split[own] == Split.TEST
        if is_test.any():
            found = _unseen(dataset, own[~is_test], own[is_test])
            yield from [found] if found.liked.any() else []


def next_likes(dataset: Dataset, users: NDArray[np.int64]) -> Iterator[Unseen]:
    """For each of the users some of the test likes of unknown items, at random, each to be found
    with all events before it.
    """
    log, random = dataset.log, np.random.default_rng(SEED)
    for user in users:
        own = np.flatnonzero(log.happened & (log.user == user))
        _, first = np.unique(log.item[own], return_index=True)
        new = own[np.sort(first)]
        new = new[(log.split[new] == Split.TEST) & log.liked[new]]
        for row in np.sort(random.permutation(new)[:LIKES_EACH]):
            yield _unseen(dataset, own[own < row], np.array([row]))


def _unseen(dataset: Dataset, before: NDArray[np.int64], after: NDArray[np.int64]) -> Unseen:
    """At the time of the first row of ``after``; both are rows of one user, oldest first."""
    log, every = dataset.log, np.arange(len(dataset.catalogue))
    known = np.isin(every, log.item[before])
    liked = np.isin(every, log.item[after[log.liked[after]]])
    call = Request(dataset, after, before, int(after[0]))
    return Unseen(call, every[~known], liked[~known])


def rank_all_items(
    scorer: BundleScorer, cases: Sequence[Unseen], on_step: Step
) -> AllItemsReport | None:
    """Ranks for each case all items that the user does not know, in one list; None without cases.

    A user's metrics are the means over the user's cases.
    """
    found: list[Mapping[str, tuple[float, float, float]]] = []
    for case in cases:
        scores = _scores(scorer, case)
        found.append({name: _top_metrics(case.liked, score) for name, score in scores.items()})
        on_step(len(found), len(cases))
    if not found:
        return None
    users = np.array([case.history.dataset.log.user[case.history.asked] for case in cases])
    return _report(found, users, len(cases[0].history.dataset.catalogue))


def _scores(scorer: BundleScorer, case: Unseen) -> Scores:
    """(n,) of each score for the case's items."""
    features = scorer.loaded.provider.features(case.query(case.items))
    tree_logits = scorer.loaded.trees.logits(features.tabular)
    return {
        SERVED: _served(scorer, case, tree_logits),
        "lightgbm": tree_logits,
        "cf": features.tabular[:, -1],
        "popularity": scorer.loaded.features.popularity[case.items],
    }


def _served(
    scorer: BundleScorer, case: Unseen, tree_logits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) the scores of the PREFILTER items that the trees rank highest; the others are below."""
    first = np.argsort(-tree_logits, kind="stable")[:PREFILTER]
    prepared = scorer.prepare(case.query(case.items[first]), case.history.rows)
    weights = scorer.loaded.router.route(prepared.routing_vector).weights
    mixtures = {SERVED: [MixtureWeights(weights)]}
    margins = scorer.margins([prepared], mixtures, lambda num_scored, num_prompts: None)
    scores = np.full(len(tree_logits), -np.inf)
    scores[first] = prepared.tree_logits + margins[SERVED]
    return scores


def _top_metrics(
    liked: NDArray[np.bool_], score: NDArray[np.floating]
) -> tuple[float, float, float]:
    """NDCG, hit and recall of the first items."""
    hits = int(liked[np.argsort(-score, kind="stable")[:TOP]].sum())
    return ndcg(liked, score, TOP), float(hits > 0), hits / int(liked.sum())


def _report(
    found: Sequence[Mapping[str, tuple[float, float, float]]],
    users: NDArray[np.int64],
    num_items: int,
) -> AllItemsReport:
    """``found``: the metrics of each score, for each case. ``users``: (cases,) of whom it is."""
    values = {name: _by_user(np.array([one[name] for one in found]), users) for name in found[0]}
    ndcgs = {name: value[:, 0] for name, value in values.items()}
    return AllItemsReport(
        num_users=len(ndcgs[SERVED]),
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


def _by_user(values: NDArray[np.float64], users: NDArray[np.int64]) -> NDArray[np.float64]:
    """(users, k) means of the rows, (cases, k), of each user."""
    of, num = np.unique(users, return_inverse=True, return_counts=True)[1:]
    sums = np.zeros((len(num), values.shape[1]))
    np.add.at(sums, of, values)
    return np.asarray(sums / num[:, None])


def _picked(items: Sequence[Item], indices: NDArray[np.int64]) -> tuple[Item, ...]:
    return tuple(items[index] for index in indices)
