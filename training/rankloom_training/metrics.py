"""Ranking metrics as the published tables compute them, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

TOP = 5
BOOTSTRAP_SAMPLES = 1000
Pair = tuple[NDArray[np.floating], NDArray[np.floating]]  # scores, (n,) each
NORMAL_95 = 1.96  # standard deviations on each side of a 95 % interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95 % interval from a bootstrap over users."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """Of a normal distribution with this interval."""
        return (self.high - self.low) / (2 * NORMAL_95)


@dataclass(frozen=True, slots=True)
class RankingMetrics:
    """AUC is over all rows; the others are means over users, see ``evaluate``."""

    auc: Estimate
    uauc: Estimate
    ndcg5: Estimate
    map5: Estimate
    num_eligible: int


def auc(label: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """P(a liked row scores above a disliked one); ties count half. NaN with one class only."""
    num_liked = int(label.sum())
    pairs = num_liked * (len(label) - num_liked)
    if not pairs:
        return float("nan")
    ranks = float(rankdata(score)[label].sum())
    return (ranks - num_liked * (num_liked + 1) / 2) / pairs


def expected_calibration_error(
    label: NDArray[np.bool_], probability: NDArray[np.floating], bins: int = 15
) -> float:
    """ECE over equally wide bins of the probability (Guo et al., 2017, equation 3); (n,) rows."""
    index = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, weights=label - probability, minlength=bins)
    return float(np.abs(gaps).sum() / len(label))


def ndcg(label: NDArray[np.bool_], score: NDArray[np.floating], top: int = TOP) -> float:
    """NDCG@top with binary gain. 0 without a liked row."""
    order = np.argsort(-score, kind="stable")[:top]
    discount = 1.0 / np.log2(np.arange(2, top + 2))
    best = discount[: min(int(label.sum()), top)].sum()
    return float((label[order] * discount[: len(order)]).sum() / best) if best else 0.0


def average_precision(label: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """AP@5, divided by the number of liked rows as in ThinkRec's code. 0 without one."""
    hits = label[np.argsort(-score, kind="stable")[:TOP]]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    num_liked = int(label.sum())
    return float((precision * hits).sum() / num_liked) if num_liked else 0.0


def evaluate(
    user: NDArray[np.int64], label: NDArray[np.bool_], score: NDArray[np.floating], seed: int = 0
) -> RankingMetrics:
    """All metrics of (n,) rows.

    UAUC: unweighted mean over the eligible users, who have both likes and dislikes.
    NDCG@5 and MAP@5: mean over users with at least two rows.
    """
    groups = rows_by_user(user)
    per_user = [(label[rows], score[rows]) for rows in groups]
    uaucs = [auc(*rows) for rows in per_user]
    listed = [rows if len(rows[0]) > 1 else None for rows in per_user]
    ndcgs = [ndcg(*rows) if rows else float("nan") for rows in listed]
    maps = [average_precision(*rows) if rows else float("nan") for rows in listed]
    samples = _user_samples(len(groups), seed)
    return RankingMetrics(
        auc=_estimate(auc(label, score), samples, _auc_of_sample(groups, label, score)),
        uauc=_mean_estimate(uaucs, samples),
        ndcg5=_mean_estimate(ndcgs, samples),
        map5=_mean_estimate(maps, samples),
        num_eligible=int(np.isfinite(uaucs).sum()),
    )


def auc_difference(
    user: NDArray[np.int64],
    label: NDArray[np.bool_],
    one: NDArray[np.floating],
    other: NDArray[np.floating],
    seed: int = 0,
) -> Estimate:
    """AUC of ``one`` minus AUC of ``other``, with a paired bootstrap over users."""
    return mean_auc_difference(user, label, [(one, other)], seed)


def mean_auc_difference(
    user: NDArray[np.int64], label: NDArray[np.bool_], pairs: Sequence[Pair], seed: int = 0
) -> Estimate:
    """The mean of ``auc_difference`` over pairs of scores of the same rows, as of several seeds."""
    groups = rows_by_user(user)
    of_pairs = [[_auc_of_sample(groups, label, score) for score in pair] for pair in pairs]

    def difference(users: NDArray[np.int64]) -> float:
        return float(np.mean([first(users) - second(users) for first, second in of_pairs]))

    whole = np.mean([auc(label, one) - auc(label, other) for one, other in pairs])
    return _estimate(float(whole), _user_samples(len(groups), seed), difference)


def uauc_difference(
    user: NDArray[np.int64],
    label: NDArray[np.bool_],
    one: NDArray[np.floating],
    other: NDArray[np.floating],
    seed: int = 0,
) -> Estimate:
    """UAUC of ``one`` minus UAUC of ``other``, with a paired bootstrap over users."""
    return mean_uauc_difference(user, label, [(one, other)], seed)


def mean_uauc_difference(
    user: NDArray[np.int64], label: NDArray[np.bool_], pairs: Sequence[Pair], seed: int = 0
) -> Estimate:
    """The mean of ``uauc_difference`` over pairs of scores of the same rows."""
    groups = rows_by_user(user)
    differences = [
        [auc(label[rows], one[rows]) - auc(label[rows], other[rows]) for rows in groups]
        for one, other in pairs
    ]
    return mean_over_users(np.mean(differences, axis=0).tolist(), seed)


def balance(
    user: NDArray[np.int64], label: NDArray[np.bool_], score: NDArray[np.floating]
) -> float:
    """The mean of AUC and UAUC: a score must order rows across users and within each."""
    uaucs = [auc(label[rows], score[rows]) for rows in rows_by_user(user)]
    known = [auc(label, score), _nanmean(np.array(uaucs))]
    return _nanmean(np.array(known))


def balance_difference(
    user: NDArray[np.int64],
    label: NDArray[np.bool_],
    one: NDArray[np.floating],
    other: NDArray[np.floating],
    seed: int = 0,
) -> Estimate:
    """``balance`` of ``one`` minus that of ``other``, with a paired bootstrap over users."""
    groups = rows_by_user(user)
    first, second = (_auc_of_sample(groups, label, score) for score in (one, other))
    within = np.array(
        [auc(label[rows], one[rows]) - auc(label[rows], other[rows]) for rows in groups]
    )

    def difference(users: NDArray[np.int64]) -> float:
        return _nanmean(np.array([first(users) - second(users), _nanmean(within[users])]))

    every = np.arange(len(groups))
    return _estimate(difference(every), _user_samples(len(groups), seed), difference)


def mean_over_users(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of one value per user. That of differences is a paired comparison."""
    return _mean_estimate(values, _user_samples(len(values), seed))


def rows_by_user(user: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row indices of each user, in the order of the user codes."""
    order = np.argsort(user, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(user[order])) + 1)


def _user_samples(num_users: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, num_users, (BOOTSTRAP_SAMPLES, num_users))


def _auc_of_sample(
    groups: Sequence[NDArray[np.int64]], label: NDArray[np.bool_], score: NDArray[np.floating]
) -> Callable[[NDArray[np.int64]], float]:
    """The AUC of drawn users: a row counts as often as its user was drawn.

    Sorted once: a sample is then two sums over runs of equal scores.
    """
    owner = np.empty(len(label), np.int64)
    for user, rows in enumerate(groups):
        owner[rows] = user
    order = np.argsort(score)
    owner, liked, sorted_score = owner[order], label[order], score[order]
    runs = np.flatnonzero(np.append(True, sorted_score[1:] != sorted_score[:-1]))

    def of(users: NDArray[np.int64]) -> float:
        count = np.bincount(users, minlength=len(groups))[owner]
        positive, all_rows = np.add.reduceat(count * liked, runs), np.add.reduceat(count, runs)
        negative = all_rows - positive
        pairs = positive.sum() * negative.sum()
        wins = positive @ (2 * np.cumsum(negative) - negative)
        return float(wins / (2 * pairs)) if pairs else float("nan")

    return of


def _mean_estimate(values: Sequence[float], samples: NDArray[np.int64]) -> Estimate:
    array = np.array(values)
    if not np.isfinite(array).any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    return _estimate(float(np.nanmean(array)), samples, lambda users: _nanmean(array[users]))


def _nanmean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _estimate(
    value: float, samples: NDArray[np.int64], of: Callable[[NDArray[np.int64]], float]
) -> Estimate:
    low, high = np.nanquantile([of(users) for users in samples], [0.025, 0.975])
    return Estimate(value, float(low), float(high))
