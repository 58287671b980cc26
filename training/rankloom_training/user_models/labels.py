"""Labels of a log's rows, without their times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import Interactions


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Rows of a log: ``user``, ``item``, ``liked``, (rows,) each."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    liked: NDArray[np.bool_]

    @property
    def overall(self) -> float:
        """Share of likes; 0.5 without rows."""
        return float(self.liked.mean()) if len(self.liked) else 0.5


def labels_of(log: Interactions, rows: NDArray[np.bool_]) -> Labels:
    """The log's rows for which the mask is true, without sampled negatives."""
    rows = rows & log.happened
    return Labels(log.user[rows], log.item[rows], log.liked[rows])
