"""LightGCN (He et al., SIGIR 2020), with user vectors folded in from what users liked."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rankloom_features.models.base import CollaborativeModel

NUM_LAYERS = 2  # each goes from items to users and back: two of the paper's layers


class LightGCN(CollaborativeModel):
    """Item vectors are spread over the graph of likes; a user is Σ ± p_i / √(d_i n) of n items.

    p is the mean of the items' vectors over all layers and d_i the number of users who like an
    item (equations 3 and 4). Users have no vector of their own to learn, so that those who come
    later are encoded as well. Dislikes are no edges; among a user's events they count with −.
    """

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__(num_items, dim)
        self.register_buffer("strength", torch.ones(num_items + 1))  # 1 / √d
        self._graph: tuple[Tensor, Tensor] | None = None  # users × items, and items × users
        self._spread: Tensor | None = None  # while the weights stay as they are

    def learn_graph(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> None:
        """Takes distinct likes; the whole graph is read in every training step."""
        edges = np.unique(np.stack([np.unique(user, return_inverse=True)[1], item]), axis=1)
        of_user, of_item = (np.bincount(codes).clip(1) for codes in edges)
        weights = 1.0 / np.sqrt(of_user[edges[0]] * of_item[edges[1]])
        shape = (len(of_user), self.vectors.num_embeddings - 1)
        graph = torch.sparse_coo_tensor(
            torch.from_numpy(edges), torch.from_numpy(weights).float(), shape, check_invariants=True
        ).coalesce()
        self._graph = graph, graph.t().coalesce()
        degrees = np.ones(shape[1] + 1)
        degrees[1 : 1 + len(of_item)] = of_item
        self.strength = torch.from_numpy(1.0 / np.sqrt(degrees)).float()

    def settle(self) -> None:
        """The spread vectors become the items' own; the graph is not needed any more."""
        with torch.no_grad():
            self.vectors.weight.copy_(self._table())
        self._graph = self._spread = None

    def train(self, mode: bool = True) -> LightGCN:
        """Weights change between this and the next evaluation."""
        self._spread = None
        super().train(mode)
        return self

    def encode(self, items: Tensor, liked: Tensor) -> Tensor:
        """(batch, dim) user vectors; zero for a row that is all padding."""
        seen = (items > 0).to(self.strength.dtype)
        weights = (2.0 * liked.to(seen.dtype) - 1.0) * seen * self.strength[items]
        summed = (self._vectors_of(items) * weights[..., None]).sum(dim=1)
        users: Tensor = summed / seen.sum(dim=1, keepdim=True).clamp_min(1.0).sqrt()
        return users

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """(batch, n) liking logits of items (batch, n), numbered as events are."""
        products: Tensor = (self._vectors_of(items) * users[:, None, :]).sum(-1)
        biases: Tensor = self.item_bias(items).squeeze(-1)
        return products + biases

    def _vectors_of(self, items: Tensor) -> Tensor:
        if self._graph is None:
            settled: Tensor = self.vectors(items)
            return settled
        return functional.embedding(items, self._table())

    def _table(self) -> Tensor:
        """(items + 1, dim) the mean over the layers; once a pass."""
        if self._graph is None:
            return self.vectors.weight
        if self._spread is None:
            self._spread = self._propagated(self._graph)
        return self._spread

    def _propagated(self, graph: tuple[Tensor, Tensor]) -> Tensor:
        to_users, to_items = graph
        layers = [self.vectors.weight[1:]]
        for _ in range(NUM_LAYERS):
            layers.append(torch.sparse.mm(to_items, torch.sparse.mm(to_users, layers[-1])))
        mean = torch.stack(layers).mean(dim=0)
        return torch.cat([torch.zeros(1, self.dim), mean])

    def forward(self, items: Tensor, liked: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, dim) user vectors and (batch, n) logits of the candidates."""
        if self.training:
            self._spread = None  # of the step before
        return super().forward(items, liked, candidates)
