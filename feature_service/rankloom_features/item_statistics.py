"""How often each item was rated and liked in the training rows, and which items go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEAN_PRIOR_ROWS = 10.0  # an item's or attribute's mean starts with this many average rows


@dataclass(frozen=True, slots=True, eq=False)
class ItemStatistics:
    """Statistics of each item in the training rows.

    ``rows`` and ``likes``: (items,) float32 counts. ``co_liking`` and ``co_rating``: (items, k)
    float32 factors. The inner product of two items' factors measures how often they are liked
    together, or rated above average together. ``co_session``: (items, k) likewise of items that are
    liked in one session; None for a log that has dislikes.
    """

    rows: NDArray[np.float32]
    likes: NDArray[np.float32]
    co_liking: NDArray[np.float32]
    co_rating: NDArray[np.float32]
    co_session: NDArray[np.float32] | None = None

    @property
    def overall_mean(self) -> float:
        """Share of liked rows; 0.5 without rows, and exactly 1 where every row is a like.

        Then an item's mean is 1 too, however many rows it has: that it is popular is said by the
        number of rows alone.
        """
        if self.rows.any() and np.array_equal(self.likes, self.rows):
            return 1.0
        return float((self.likes.sum() + 0.5) / (self.rows.sum() + 1.0))

    @property
    def mean(self) -> NDArray[np.float32]:
        """(items,) share of liked rows, smoothed towards the overall mean."""
        likes = self.likes + MEAN_PRIOR_ROWS * self.overall_mean
        return (likes / (self.rows + MEAN_PRIOR_ROWS)).astype(np.float32)
