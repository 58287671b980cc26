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
        vectors = self.vectors(items)
        positive = liked.to(vectors.dtype)[..., None]
        mapped = positive * self.of_liked(vectors) - (1 - positive) * self.of_disliked(vectors)
        seen = (items > 0).to(vectors.dtype)[..., None]
        count = seen.sum(dim=1).clamp_min(1.0)
        users: Tensor = (mapped * seen).sum(dim=1) / torch.sqrt(count)
        return users
