"""Spaces in which a user is compared with all items: what retrieval needs of a model."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankloom_features.provider import UserFeatures
from rankloom_features.scorer import Scorer


class VectorSpace(Protocol):
    """Users and items as vectors of one length; the inner product orders the items.

    Any model with such vectors can be retrieved by, such as the two towers of a text encoder.
    Immutable, and safe from several threads.
    """

    @property
    def name(self) -> str:
        """Which model it is, as an item index names it."""
        ...

    @property
    def items(self) -> NDArray[np.float32]:
        """(items, dim) in the order of the catalogue, C-contiguous."""
        ...

    def user(self, features: UserFeatures) -> NDArray[np.float32]:
        """(dim,) the user's vector; the features are those of the bundle's own version."""
        ...


class CollaborativeSpace:
    """The collaborative model's logit u · v + b as one inner product: [u, 1] · [v, b].

    A model of ratings knows who likes an item, and not who will choose it. With the items' training
    rows n, b + log(n + 1) stands in the place of b: the product is then the log of the odds of a
    like times how often the item was chosen. A model that was fitted to likes against sampled items
    knows both.
    """

    name = "collaborative"

    def __init__(self, scorer: Scorer, rows: NDArray[np.floating], *, sampled: bool) -> None:
        """``rows``: (items,) n. ``sampled``: whether the model learnt from sampled dislikes."""
        bias = scorer.bias if sampled else scorer.bias + np.log1p(rows)
        items = np.column_stack([scorer.vectors, bias]).astype(np.float32)
        self.items: NDArray[np.float32] = np.ascontiguousarray(items)

    def user(self, features: UserFeatures) -> NDArray[np.float32]:
        """(dim + 1,) float32."""
        [user] = self.users(features.vector[None])
        return np.asarray(user)

    def users(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, dim + 1) for (n, dim) vectors of the model."""
        users = np.ones((len(vectors), vectors.shape[1] + 1), np.float32)
        users[:, :-1] = vectors
        return users
