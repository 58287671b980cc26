"""Cross-fitting: which generator writes about which row; none writes of what it has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import DataError, Split
from rankloom_training.data.reviews import Reviews

MAX_FOLDS = 20


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """``fold``: (rows,) which generator writes of each row; 0 for validation and test rows."""

    fold: NDArray[np.int64]
    is_training: NDArray[np.bool_]
    number: int

    @classmethod
    def of(cls, reviews: Reviews, number: int, seed: int) -> CrossFit:
        """Folds of the training rows, each with the same shares of ratings.

        Raises DataError if a fold would be empty.
        """
        training = reviews.rows(Split.TRAIN)
        if len(training) < number:
            raise DataError(f"{len(training)} training reviews are fewer than {number} folds")
        order = np.random.default_rng(seed).permutation(training)
        by_rating = order[np.argsort(np.rint(reviews.rating[order]), kind="stable")]
        fold = np.zeros(len(reviews), dtype=np.int64)
        fold[by_rating] = np.arange(len(by_rating)) % number
        return cls(fold, reviews.split == Split.TRAIN, number)

    def learnt_by(self, number: int) -> NDArray[np.int64]:
        """(n,) the rows that a generator may learn from."""
        return np.flatnonzero(self.is_training & (self.fold != number))

    def written_by(self, number: int) -> NDArray[np.int64]:
        """(n,) the rows that it writes about."""
        return np.flatnonzero(self.fold == number)
