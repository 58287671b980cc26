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
from torch.nn import functional

from rankloom_training.reccot.factors import RatingFactors


@dataclass(frozen=True, slots=True)
class TowerShape:
    """``dim``: of what is read of a review."""

    dim: int
    hidden: int = 32
    layers: int = 1
    heads: int = 4
    dropout: float = 0.2


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
    """Matrix factorisation with biases, whose vectors the pooled reviews change, and a head.

    mean + b_user + b_item + (p + A f) · (q + B g) + head(f, g, f * g), where f and g are the pooled
    reviews of user and item. All that reviews add is zero before the training.
    """

    def __init__(self, shape: TowerShape, factors: RatingFactors) -> None:
        """``factors``: with vectors of ``shape.hidden`` numbers. They are trained further."""
        super().__init__()
        self.shape, self.factors, hidden = shape, factors, shape.hidden
        self.of_user, self.of_item = ReviewPool(shape), ReviewPool(shape)
        self.add_user, self.add_item = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.match_user, self.match_item = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.hidden, self.head = nn.Linear(3 * hidden, hidden), nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(shape.dropout)
        for layer in (self.add_user, self.add_item, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

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
            self.of_user(self.factors.items.vector(item), user_vectors, user_mask),
            self.of_item(self.factors.users.vector(user), item_vectors, item_mask),
        )

    def rating(self, user: Tensor, item: Tensor, of_user: Tensor, of_item: Tensor) -> Tensor:
        """(n,) from the codes and the features of both sides."""
        p = self.factors.users.vector(user) + self.add_user(of_user)
        q = self.factors.items.vector(item) + self.add_item(of_item)
        both = torch.cat([of_user, of_item, of_user * of_item], dim=1)
        more = self.head(self.dropout(functional.gelu(self.hidden(both))))[:, 0]
        rating: Tensor = self.factors.biases(user, item) + (p * q).sum(dim=1) + more
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
        pooled = self.features(user, item, user_vectors, user_mask, item_vectors, item_mask)
        return self.rating(user, item, *pooled)
