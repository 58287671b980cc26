"""What the towers are compared with: means, and matrix factorisation with biases."""

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

PRIOR_ROWS = 5.0  # how many rows at the mean of all a user's or an item's mean begins with
DIM, BATCH, MAX_EPOCHS, PATIENCE, LEARNING_RATE = 16, 256, 60, 5, 5e-3
PENALTIES = (1e-2, 1e-1, 1.0)  # weight decays; validation rows choose
Ratings = NDArray[np.float64]


def mean_predictions(reviews: Reviews, wanted: NDArray[np.int64]) -> dict[str, Ratings]:
    """(n,) each: the mean of all training ratings, of the user's and of the item's."""
    training = reviews.rows(Split.TRAIN)
    overall = float(reviews.rating[training].mean())
    return {
        "global mean": np.full(len(wanted), overall),
        "user mean": _means(reviews.user, reviews, overall)[wanted],
        "item mean": _means(reviews.item, reviews, overall)[wanted],
    }


def _means(codes: NDArray[np.int64], reviews: Reviews, overall: float) -> Ratings:
    """(rows,) of the training ratings of each row's code."""
    training, number = reviews.rows(Split.TRAIN), int(codes.max()) + 1
    excess = np.bincount(codes[training], reviews.rating[training] - overall, minlength=number)
    counts = np.bincount(codes[training], minlength=number)
    return np.asarray((overall + excess / (counts + PRIOR_ROWS))[codes])


class _Factors(nn.Module):
    """mean + b_user + b_item + p_user · q_item (Koren et al., 2009, equation 4)."""

    def __init__(self, users: int, items: int, mean: float) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, DIM + 1), nn.Embedding(items, DIM + 1)
        self.mean = mean
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        p, q = self.users(user), self.items(item)
        rating: Tensor = self.mean + p[:, 0] + q[:, 0] + (p[:, 1:] * q[:, 1:]).sum(dim=1)
        return rating


def factor_predictions(
    reviews: Reviews, rows: TowerRows, wanted: NDArray[np.int64], seed: int
) -> Ratings:
    """(n,) by the penalty and the epoch of the lowest squared error on validation rows."""
    found = [_fit(reviews, rows, penalty, seed) for penalty in PENALTIES]
    _, best = min(found, key=lambda each: each[0])
    return _predict(best, rows, wanted)


def _fit(reviews: Reviews, rows: TowerRows, penalty: float, seed: int) -> tuple[float, _Factors]:
    torch.manual_seed(seed)
    training, validation = reviews.rows(Split.TRAIN), reviews.rows(Split.VALID)
    model = _Factors(*rows.num_codes, float(reviews.rating[training].mean()))
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=penalty)
    random, best, kept, since = np.random.default_rng(seed), np.inf, copy.deepcopy(model), 0
    for _ in range(MAX_EPOCHS):
        order = random.permutation(training)
        for start in range(0, len(order), BATCH):
            _step(model, optimiser, reviews, rows, order[start : start + BATCH])
        error = float(
            np.mean((_predict(model, rows, validation) - reviews.rating[validation]) ** 2)
        )
        since += 1
        if error < best:
            best, kept, since = error, copy.deepcopy(model), 0
        if since >= PATIENCE:
            break
    return best, kept


def _step(
    model: _Factors,
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


@torch.inference_mode()
def _predict(model: _Factors, rows: TowerRows, wanted: NDArray[np.int64]) -> Ratings:
    found = model(torch.from_numpy(rows.user[wanted]), torch.from_numpy(rows.item[wanted]))
    return np.asarray(np.clip(found.numpy().astype(np.float64), LOWEST, HIGHEST))
