"""Rows of a log of reviews as inputs of the towers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.histories import ReviewHistories
from rankloom_training.reccot.towers import UNKNOWN, TowerInputs


@dataclass(frozen=True, slots=True, eq=False)
class TowerRows:
    """``user``, ``item``: (rows,) codes. ``vectors``: (rows, dim) float32 of each review."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    vectors: NDArray[np.float32]
    histories: ReviewHistories

    @classmethod
    def of(cls, reviews: Reviews, vectors: NDArray[np.float32]) -> TowerRows:
        training = reviews.rows(Split.TRAIN)
        return cls(
            _codes(reviews.user, training),
            _codes(reviews.item, training),
            vectors,
            ReviewHistories.of(reviews),
        )

    def inputs(self, rows: NDArray[np.int64]) -> TowerInputs:
        user_vectors, user_mask = self._seen(self.histories.user[rows])
        item_vectors, item_mask = self._seen(self.histories.item[rows])
        user, item = torch.from_numpy(self.user[rows]), torch.from_numpy(self.item[rows])
        return TowerInputs(user, item, user_vectors, user_mask, item_vectors, item_mask)

    @property
    def num_codes(self) -> tuple[int, int]:
        """Of users and of items."""
        return int(self.user.max()) + 1, int(self.item.max()) + 1

    def _seen(self, seen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        mask = seen >= 0
        vectors = np.where(mask[..., None], self.vectors[np.maximum(seen, 0)], np.float32(0.0))
        return torch.from_numpy(vectors), torch.from_numpy(mask)


def _codes(ids: NDArray[np.int64], training: NDArray[np.int64]) -> NDArray[np.int64]:
    """(rows,) from 1 for what has training rows; UNKNOWN for all others."""
    known = np.unique(ids[training])
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, at + 1, UNKNOWN)
