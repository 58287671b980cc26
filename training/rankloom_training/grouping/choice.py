"""Chooses how many groups, on validation rows and without training an expert for any of them.

In place of an expert, each group gets a linear head over its candidates' items, on top of the
trees' logit: what a group likes otherwise than the trees say. How much less log-loss the heads
have on validation rows than one head for all users says what a grouping can be worth. An expert
reads text and more than linear relations, so this is a cheap guide, not the experts' own gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Router, group_of
from rankloom_training.group_counts import MAX_TRIED, MIN_GROUPS, Clustering, GroupError
from rankloom_training.groups import fit_router

RIDGE = 100.0  # a head is as strong a belief as so many rows

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RankedRows:
    """Rows of one split; arrays of one entry a row.

    ``vector``: (rows, dim) the user's. ``item``: (rows, columns) what is known of the candidate.
    ``logit``: the trees', out of fold for training rows.
    """

    user: NDArray[np.int64]
    vector: NDArray[np.float32]
    item: NDArray[np.float64]
    logit: NDArray[np.float64]
    liked: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LossGain:
    """How much less log-loss one score has than another, in nats a row, with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, rows: RankedRows, one: Scores, other: Scores) -> LossGain:
        """``other``'s loss less ``one``'s. A user's rows are not independent, but users are."""
        per_user = np.bincount(rows.user, _losses(rows, other) - _losses(rows, one))
        per_user = per_user[np.unique(rows.user)]
        return cls(
            float(per_user.sum() / len(rows.user)),
            float(per_user.std() * np.sqrt(len(per_user)) / len(rows.user)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RouterChoice:
    """``gains``: number of groups → heads by group over one head for all users."""

    router: Router
    gains: Mapping[int, LossGain]


def choose_router(
    users: NDArray[np.float32],
    train: RankedRows,
    valid: RankedRows,
    seed: int,
    clustering: Clustering,
) -> RouterChoice:
    """The fewest groups that are as good as the best, within one standard error of the difference.

    That rule is Breiman's (1984). ``users``: (users, dim). Raises GroupError if not even
    MIN_GROUPS groups can be made.
    """
    routers = _routers(users, seed, clustering)
    shared = _scores(None, train, valid)
    scores = {num: _scores(router, train, valid) for num, router in routers.items()}
    gains = {num: LossGain.of(valid, score, shared) for num, score in scores.items()}
    best = scores[max(gains, key=lambda num: gains[num].value)]
    behind = {num: LossGain.of(valid, best, score) for num, score in scores.items()}
    chosen = min(num for num, loss in behind.items() if loss.value <= loss.error)
    return RouterChoice(routers[chosen], gains)


def _routers(users: NDArray[np.float32], seed: int, clustering: Clustering) -> dict[int, Router]:
    """Number of groups → router; without numbers that leave a group nearly empty."""
    found = {MIN_GROUPS: fit_router(users, MIN_GROUPS, seed, clustering)}
    for num in range(MIN_GROUPS + 1, MAX_TRIED + 1):
        try:
            found[num] = fit_router(users, num, seed, clustering)
        except GroupError:
            continue
    return found


def _scores(router: Router | None, train: RankedRows, valid: RankedRows) -> Scores:
    """(valid rows,) the logit with the head of each row's group; None: with one head for all."""
    scores = valid.logit.copy()
    own_train, own_valid = _groups(router, train), _groups(router, valid)
    for group in np.unique(own_valid):
        head = _head(train, own_train == group)
        mask = own_valid == group
        scores[mask] += valid.item[mask] @ head
    return scores


def _groups(router: Router | None, rows: RankedRows) -> NDArray[np.int64]:
    if router is None:
        return np.zeros(len(rows.user), np.int64)
    return group_of(rows.vector, router.centre, router.centroids)


def _head(rows: RankedRows, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(columns,) one Newton step of the penalised logistic regression on the logit's residual.

    (XᵀWX + λI) β = Xᵀ(y − p), W = p (1 − p): from β = 0 (Hastie et al., 2009, section 4.4.1).
    """
    item, p = rows.item[mask], 1.0 / (1.0 + np.exp(-rows.logit[mask]))
    information = item.T @ (item * (p * (1.0 - p))[:, None]) + RIDGE * np.eye(item.shape[1])
    residual = item.T @ (rows.liked[mask] - p)
    return np.asarray(np.linalg.solve(information, residual), np.float64)


def _losses(rows: RankedRows, scores: Scores) -> NDArray[np.float64]:
    """(rows,) log-loss of each."""
    return np.logaddexp(0.0, np.where(rows.liked, -scores, scores))


def standardised(columns: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """(rows, columns + 1): each column with mean 0 and deviation 1, and a constant."""
    joined = np.concatenate(columns, axis=1).astype(np.float64)
    spread = joined.std(axis=0)
    scaled = (joined - joined.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return np.column_stack([scaled, np.ones(len(scaled))])
