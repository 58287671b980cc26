"""Rows of a log of reviews as inputs of the towers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankloom_training.data import Split
from rankloom_training.data.reviews import HIGHEST, LOWEST, Reviews
from rankloom_training.reccot.histories import ReviewHistories

UNKNOWN = 0  # the code of every user, or item, without a training row


def with_ratings(vectors: NDArray[np.float32], ratings: NDArray[np.float64]) -> NDArray[np.float32]:
    """(rows, dim + 1) what towers read of each review: its vector, and its rating from -1 to 1.

    A text encoder fits the ratings that it was trained on better than later ones; with the rating
    itself beside the vector, reviews say equally much before and after the end of training.
    """
    centred = (ratings - (HIGHEST + LOWEST) / 2) / ((HIGHEST - LOWEST) / 2)
    return np.hstack([vectors, centred.astype(np.float32)[:, None]])


@dataclass(frozen=True, slots=True, eq=False)
class TowerInputs:
    """Rows to predict. ``user``, ``item``: (n,) int64 codes.

    ``user_vectors``, ``item_vectors``: (n, reviews, dim); ``user_mask``, ``item_mask``:
    (n, reviews) bool, True where there is a review.
    """

    user: Tensor
    item: Tensor
    user_vectors: Tensor
    user_mask: Tensor
    item_vectors: Tensor
    item_mask: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of ``TwoTowers.forward``."""
        return (
            *(self.user, self.item),
            *(self.user_vectors, self.user_mask, self.item_vectors, self.item_mask),
        )


@dataclass(frozen=True, slots=True, eq=False)
class TowerRows:
    """``user``, ``item``: (rows,) codes. ``vectors``: (rows, dim) float32, of `with_ratings`."""

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
