"""What the towers are compared with: means, and matrix factorisation with biases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.factors import factor_ratings, fit_factors
from rankloom_training.reccot.tower_rows import TowerRows

PRIOR_ROWS = 5.0  # how many rows at the mean of all a user's or an item's mean begins with
DIM = 16  # of the factors
Ratings = NDArray[np.float64]


def mean_predictions(reviews: Reviews, wanted: NDArray[np.int64]) -> dict[str, Ratings]:
    """(n,) each: the mean of all training ratings, of the user's and of the item's."""
    training = reviews.rows(Split.TRAIN)
    overall = float(reviews.rating[training].mean())
    return {
        "global mean": np.full(len(wanted), overall),
        "user mean": _means(reviews.user, reviews, overall)[wanted],
        "item mean": _means(reviews.item, reviews, overall)[wanted],
    }


def _means(codes: NDArray[np.int64], reviews: Reviews, overall: float) -> Ratings:
    """(rows,) of the training ratings of each row's code."""
    training, number = reviews.rows(Split.TRAIN), int(codes.max()) + 1
    excess = np.bincount(codes[training], reviews.rating[training] - overall, minlength=number)
    counts = np.bincount(codes[training], minlength=number)
    return np.asarray((overall + excess / (counts + PRIOR_ROWS))[codes])


def factor_predictions(
    reviews: Reviews, rows: TowerRows, wanted: NDArray[np.int64], seed: int
) -> Ratings:
    """(n,) by factors that validation rows chose."""
    return factor_ratings(fit_factors(reviews, rows, DIM, seed), rows, wanted)
