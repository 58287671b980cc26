"""Matrix factorisation with user vectors computed from item vectors.

This is Koren's asymmetric SVD (KDD 2008) without the explicit user factors: one formula for
users in the training data and for new ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankloom_features.models.base import CollaborativeModel


class MatrixFactorisation(CollaborativeModel):
    """u = (Σ_liked p_i − Σ_disliked q_i) / √n, with p and q one linear map each of v."""

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__(num_items, dim)
        self.of_liked = nn.Linear(dim, dim, bias=False)
        self.of_disliked = nn.Linear(dim, dim, bias=False)

    def encode(self, items: Tensor, liked: Tensor) -> Tensor:
        """(batch, dim) user vectors; zero for a row that is all padding."""
        liked_now = (liked > 0) & (items > 0)
        disliked_now = (liked == 0) & (items > 0)
        # The maps are linear, so they are applied once to the sums and not to each event.
        weights = torch.stack([liked_now, disliked_now], dim=1).to(self.vectors.weight.dtype)
        sums = weights @ self.vectors(items)
        count = weights.sum(dim=(1, 2)).clamp_min(1.0)[:, None]
        users: Tensor = (self.of_liked(sums[:, 0]) - self.of_disliked(sums[:, 1])) / count.sqrt()
        return users
