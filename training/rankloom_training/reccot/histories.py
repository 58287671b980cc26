"""Which earlier reviews a prediction may see: of its user and its item, before its time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data.reviews import Reviews

MOST_REVIEWS = 10
NOTHING = -1


@dataclass(frozen=True, slots=True, eq=False)
class ReviewHistories:
    """``user``, ``item``: (rows, MOST_REVIEWS) int64 rows of the reviews that each row sees.

    The newest come last; NOTHING fills the front. A row sees only reviews strictly before its own
    time, so never its own.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]

    @classmethod
    def of(cls, reviews: Reviews) -> ReviewHistories:
        time = reviews.time
        return cls(
            last_reviews(reviews, reviews.user, time), last_reviews(reviews, reviews.item, time)
        )


def last_reviews(
    reviews: Reviews, group: NDArray[np.int64], asked: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(rows, MOST_REVIEWS) the last reviews with a text of each row's group before a time.

    ``asked``: (rows,) that time.
    """
    seen = np.full((len(reviews), MOST_REVIEWS), NOTHING, dtype=np.int64)
    has_text = reviews.has_text
    order = np.argsort(group, kind="stable")  # rows stay in the order of time
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for own in np.split(order, starts[1:]):
        spoken = own[has_text[own]]
        ends = np.searchsorted(reviews.time[spoken], asked[own], side="left")
        at = ends[:, None] + np.arange(-MOST_REVIEWS, 0)
        if len(spoken):
            seen[own] = np.where(at >= 0, spoken[np.maximum(at, 0)], NOTHING)
    return seen
