"""Base class of the collaborative models: a user encoder and item vectors in one space."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class CollaborativeModel(nn.Module):
    """Encodes a user from events, so that it works for users that are new after training.

    Subclasses implement ``encode``. Row 0 of ``vectors`` is padding; catalogue index i is row
    i + 1. Events are (batch, length) int64: 0 is padding, on the left, else catalogue index + 1.
    ``liked`` is (batch, length) int64, 1 where the user liked the item.
    """

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.vectors = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.item_bias = nn.Embedding(num_items + 1, 1, padding_idx=0)
        nn.init.normal_(self.vectors.weight, std=0.1)
        nn.init.zeros_(self.item_bias.weight)
        with torch.no_grad():
            self.vectors.weight[0].zero_()

    def learn_graph(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> None:
        """Called before the training with its likes, (n,) user codes and catalogue indices.

        For models that read the graph of users and items; others need not.
        """

    def like_weight(self, num_negatives: int, num_items: int) -> float:
        """How much a like weighs in the loss beside each of its ``num_negatives`` sampled ones."""
        return 1.0

    def settle(self) -> None:
        """Called after the training: ``vectors`` must be those that the model scores with."""

    def encode(self, items: Tensor, liked: Tensor) -> Tensor:
        """(batch, dim) user vectors; zero for a row that is all padding."""
        raise TypeError(f"{type(self).__name__} has no encoder")

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """(batch, n) liking logits of items (batch, n), numbered as events are."""
        products: Tensor = (self.vectors(items) * users[:, None, :]).sum(-1)
        biases: Tensor = self.item_bias(items).squeeze(-1)
        return products + biases

    def forward(self, items: Tensor, liked: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, dim) user vectors and (batch, n) logits of the candidates."""
        users = self.encode(items, liked)
        return users, self.logits(users, candidates)
