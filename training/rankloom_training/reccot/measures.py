"""How far predicted ratings are off: by rating, for cold rows, and one model against another."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_training.metrics import BOOTSTRAP_SAMPLES, Estimate, auc
from rankloom_training.reccot.rewards import CLASSES

LIKE_FROM = 4.0  # of five stars, for the AUC
Ratings = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassErrors:
    """Of the rows of one rating; NaN without rows."""

    rating: int
    rows: int
    mse: float
    mae: float


@dataclass(frozen=True, slots=True)
class RatingErrors:
    """``auc``: of ratings from LIKE_FROM against lower ones. ``by_rating``: the long tail."""

    mse: float
    mae: float
    auc: float
    by_rating: tuple[ClassErrors, ...]

    @classmethod
    def of(cls, rating: Ratings, predicted: Ratings) -> RatingErrors:
        """(n,) each."""
        errors = predicted - rating
        by_rating = tuple(_of_class(each, errors[np.rint(rating) == each]) for each in CLASSES)
        liked = auc(rating >= LIKE_FROM, predicted)
        return cls(float(np.mean(errors**2)), float(np.mean(np.abs(errors))), liked, by_rating)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def _of_class(rating: int, errors: Ratings) -> ClassErrors:
    if not len(errors):
        return ClassErrors(rating, 0, float("nan"), float("nan"))
    mse, mae = float(np.mean(errors**2)), float(np.mean(np.abs(errors)))
    return ClassErrors(rating, len(errors), mse, mae)


def paired_difference(
    user: NDArray[np.int64], first: Ratings, second: Ratings, seed: int = 0
) -> Estimate:
    """Mean of ``first`` less ``second``, 95 % by a bootstrap over users.

    ``user``: (n,) whose row each is. ``first``, ``second``: (n,) squared errors.
    """
    _, codes = np.unique(user, return_inverse=True)
    sums, rows = np.bincount(codes, first - second), np.bincount(codes)
    drawn = np.random.default_rng(seed).integers(0, len(rows), (BOOTSTRAP_SAMPLES, len(rows)))
    means = sums[drawn].sum(axis=1) / rows[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(np.mean(first - second)), float(low), float(high))
