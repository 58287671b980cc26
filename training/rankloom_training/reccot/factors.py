"""Matrix factorisation with biases: a baseline of the towers, and where their training begins."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rankloom_training.data import Split
from rankloom_training.data.reviews import HIGHEST, LOWEST, Reviews
from rankloom_training.reccot.tower_rows import TowerRows

BATCH, MAX_EPOCHS, PATIENCE, LEARNING_RATE = 256, 60, 5, 5e-3
PENALTIES = (1e-2, 1e-1, 1.0)  # weight decays; validation rows choose


class IdTable(nn.Module):
    """A bias and a vector of each user, or item, by its code."""

    def __init__(self, number: int, dim: int) -> None:
        super().__init__()
        self.bias, self.vector = nn.Embedding(number, 1), nn.Embedding(number, dim)
        for table in (self.bias, self.vector):
            nn.init.normal_(table.weight, std=0.05)


class RatingFactors(nn.Module):
    """mean + b_user + b_item + p_user · q_item (Koren et al., 2009, equation 4).

    ``mean``: of the training ratings.
    """

    mean: Tensor

    def __init__(self, users: int, items: int, dim: int, mean: float) -> None:
        super().__init__()
        self.users, self.items = IdTable(users, dim), IdTable(items, dim)
        self.register_buffer("mean", torch.tensor(mean))

    def for_anyone(self, users: NDArray[np.int64]) -> RatingFactors:
        """The same items, and one user who may be any of these: bias and vector are their means.

        ``users``: (n,) codes.
        """
        items, dim = self.items.vector.weight.shape
        found = RatingFactors(1, items, dim, float(self.mean))
        found.items.load_state_dict(self.items.state_dict())
        known = torch.from_numpy(users)
        with torch.no_grad():
            found.users.bias.weight[:] = self.users.bias.weight[known].mean(dim=0)
            found.users.vector.weight[:] = self.users.vector.weight[known].mean(dim=0)
        return found

    def biases(self, user: Tensor, item: Tensor) -> Tensor:
        """(n,) mean + b_user + b_item; ``user``, ``item``: (n,) codes."""
        found: Tensor = self.mean + self.users.bias(user)[:, 0] + self.items.bias(item)[:, 0]
        return found

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """(n,) predicted ratings."""
        product: Tensor = (self.users.vector(user) * self.items.vector(item)).sum(dim=1)
        return self.biases(user, item) + product


def fit_factors(reviews: Reviews, rows: TowerRows, dim: int, seed: int) -> RatingFactors:
    """By the penalty and the epoch of the lowest squared error on validation rows."""
    found = [_fit(reviews, rows, dim, penalty, seed) for penalty in PENALTIES]
    return min(found, key=lambda each: each[0])[1]


@torch.inference_mode()
def factor_ratings(
    model: RatingFactors, rows: TowerRows, wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n,) ratings, from LOWEST to HIGHEST."""
    found = model(torch.from_numpy(rows.user[wanted]), torch.from_numpy(rows.item[wanted]))
    return np.asarray(np.clip(found.numpy().astype(np.float64), LOWEST, HIGHEST))


def _fit(
    reviews: Reviews, rows: TowerRows, dim: int, penalty: float, seed: int
) -> tuple[float, RatingFactors]:
    torch.manual_seed(seed)
    training, validation = reviews.rows(Split.TRAIN), reviews.rows(Split.VALID)
    model = RatingFactors(*rows.num_codes, dim, float(reviews.rating[training].mean()))
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=penalty)
    random, best, kept, since = np.random.default_rng(seed), np.inf, copy.deepcopy(model), 0
    for _ in range(MAX_EPOCHS):
        order = random.permutation(training)
        for start in range(0, len(order), BATCH):
            _step(model, optimiser, reviews, rows, order[start : start + BATCH])
        wrong = factor_ratings(model, rows, validation) - reviews.rating[validation]
        error, since = float(np.mean(wrong**2)), since + 1
        if error < best:
            best, kept, since = error, copy.deepcopy(model), 0
        if since >= PATIENCE:
            break
    return best, kept


def _step(
    model: RatingFactors,
    optimiser: torch.optim.Optimizer,
    reviews: Reviews,
    rows: TowerRows,
    batch: NDArray[np.int64],
) -> None:
    optimiser.zero_grad()
    found = model(torch.from_numpy(rows.user[batch]), torch.from_numpy(rows.item[batch]))
    loss = functional.mse_loss(found, torch.from_numpy(reviews.rating[batch]).float())
    loss.backward()
    optimiser.step()
