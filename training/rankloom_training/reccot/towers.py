"""Two towers: the last reviews of user and item become features, and these a rating.

RecCoT (arXiv 2506.21032): review vectors pass through a transformer and are pooled by attention,
with the item's id as the query of the user's reviews and the user's id as that of the item's. Here
each side has a mask of its own, and attention always sees one learnt vector besides the reviews, so
that a user or an item without reviews has features too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

UNKNOWN = 0  # the code of every user, or item, without a training row


@dataclass(frozen=True, slots=True)
class TowerShape:
    """``dim``: of a review vector. ``users``, ``items``: codes, UNKNOWN with them."""

    dim: int
    users: int
    items: int
    hidden: int = 64
    layers: int = 1
    heads: int = 4
    dropout: float = 0.2


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


class ReviewPool(nn.Module):
    """Review vectors to one vector, by a query."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        hidden = shape.hidden
        self.project = nn.Linear(shape.dim, hidden)
        self.nothing = nn.Parameter(torch.zeros(1, 1, hidden))
        layer = nn.TransformerEncoderLayer(
            hidden, shape.heads, 4 * hidden, shape.dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(hidden, shape.heads, shape.dropout, batch_first=True)

    def forward(self, query: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
        """``query``: (n, hidden). ``vectors``: (n, reviews, dim). Returns (n, hidden)."""
        number = vectors.shape[0]  # len() would fix it when the model is exported
        states = torch.cat([self.nothing.expand(number, -1, -1), self.project(vectors)], dim=1)
        hidden = torch.cat([mask.new_zeros(number, 1), ~mask], dim=1)
        states = self.layers(states, src_key_padding_mask=hidden)
        pooled, _ = self.attention(query[:, None], states, states, hidden, need_weights=False)
        return torch.as_tensor(pooled)[:, 0]


class TwoTowers(nn.Module):
    """``mean``: of the training ratings, from which predictions start."""

    def __init__(self, shape: TowerShape, mean: float) -> None:
        super().__init__()
        self.shape = shape
        self.users = nn.Embedding(shape.users, shape.hidden)
        self.items = nn.Embedding(shape.items, shape.hidden)
        self.of_user, self.of_item = ReviewPool(shape), ReviewPool(shape)
        self.head = nn.Sequential(
            nn.Linear(3 * shape.hidden, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, 1)
        )
        self.register_buffer("mean", torch.tensor(mean))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)

    def features(
        self,
        user: Tensor,
        item: Tensor,
        user_vectors: Tensor,
        user_mask: Tensor,
        item_vectors: Tensor,
        item_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(n, hidden) of the users and of the items; the arguments are those of TowerInputs."""
        return (
            self.of_user(self.items(item), user_vectors, user_mask),
            self.of_item(self.users(user), item_vectors, item_mask),
        )

    def rating(self, of_user: Tensor, of_item: Tensor) -> Tensor:
        """(n,) from the features of both sides."""
        both = torch.cat([of_user, of_item, of_user * of_item], dim=1)
        rating: Tensor = self.mean + self.head(both)[:, 0]
        return rating

    def forward(
        self,
        user: Tensor,
        item: Tensor,
        user_vectors: Tensor,
        user_mask: Tensor,
        item_vectors: Tensor,
        item_mask: Tensor,
    ) -> Tensor:
        """(n,) predicted ratings."""
        return self.rating(
            *self.features(user, item, user_vectors, user_mask, item_vectors, item_mask)
        )
