"""Trains the two towers: squared error of ratings, and the match of reviews with their owner."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rankloom_training.data import Split
from rankloom_training.data.reviews import HIGHEST, LOWEST, Reviews
from rankloom_training.reccot.contrast import Contrast, contrast
from rankloom_training.reccot.factors import RatingFactors, fit_factors
from rankloom_training.reccot.tower_rows import UNKNOWN, TowerInputs, TowerRows
from rankloom_training.reccot.towers import TowerShape, TwoTowers

MATCH_WEIGHT = 0.2
HIDDEN_IDS = 0.1  # share of training rows whose user, or item, is taken for unknown
PREDICTED_AT_ONCE = 512
OnEpoch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TowerOptions:
    """``patience``: epochs without a lower error on validation rows that end the training.

    ``id_decay``: weight decay of what is learnt by user and by item, which few rows teach.
    """

    hidden: int = 32
    layers: int = 1
    heads: int = 4
    dropout: float = 0.2
    epochs: int = 40
    patience: int = 6
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    id_decay: float = 0.1
    match: Contrast = Contrast.TRIPLET
    seed: int = 0

    def shape(self, rows: TowerRows) -> TowerShape:
        """Of towers that read these rows."""
        dim = rows.vectors.shape[1]
        return TowerShape(dim, self.hidden, self.layers, self.heads, self.dropout)


def untrained_towers(rows: TowerRows, options: TowerOptions) -> TwoTowers:
    """Of the form of ``train_towers``, to be filled with what that has learnt."""
    factors = RatingFactors(*rows.num_codes, options.hidden, 0.0)
    return TwoTowers(options.shape(rows), factors)


def train_towers(
    reviews: Reviews,
    rows: TowerRows,
    options: TowerOptions,
    on_epoch: OnEpoch,
    factors: RatingFactors | None = None,
) -> TwoTowers:
    """The towers of the epoch with the lowest squared error on validation rows.

    ``factors``: what they begin with; None: those that are fitted to the rows.
    """
    torch.manual_seed(options.seed)
    training, validation = reviews.rows(Split.TRAIN), reviews.rows(Split.VALID)
    if factors is None:
        factors = fit_factors(reviews, rows, options.hidden, options.seed)
    model = TwoTowers(options.shape(rows), factors)
    loop = _Loop(model, rows, torch.from_numpy(reviews.rating).float(), options)
    best, kept, since = math.inf, copy.deepcopy(model.state_dict()), 0
    for epoch in range(1, options.epochs + 1):
        loop.epoch(training)
        wrong = predict(model, rows, validation) - reviews.rating[validation]
        error = float(np.mean(wrong**2))
        on_epoch(epoch, options.epochs)
        since += 1
        if error < best:
            best, kept, since = error, copy.deepcopy(model.state_dict()), 0
        if since >= options.patience:
            break
    model.load_state_dict(kept)
    return model.eval()


def predict(model: TwoTowers, rows: TowerRows, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) ratings, from LOWEST to HIGHEST."""
    return np.clip(unbounded(model, rows, wanted).astype(np.float64), LOWEST, HIGHEST)


@torch.inference_mode()
def unbounded(model: TwoTowers, rows: TowerRows, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n,) ratings as the exported program gives them."""
    model.eval()
    found = [np.zeros(0, np.float32)]
    for start in range(0, len(wanted), PREDICTED_AT_ONCE):
        given = rows.inputs(wanted[start : start + PREDICTED_AT_ONCE])
        found.append(model(*given.tensors()).numpy())
    return np.concatenate(found)


class _Loop:
    def __init__(
        self, model: TwoTowers, rows: TowerRows, ratings: Tensor, options: TowerOptions
    ) -> None:
        self._model, self._rows, self._ratings, self._options = model, rows, ratings, options
        self._random = np.random.default_rng(options.seed)
        self._optimiser = torch.optim.AdamW(_groups(model, options), options.learning_rate)

    def epoch(self, training: NDArray[np.int64]) -> None:
        self._model.train()
        order = self._random.permutation(training)
        for start in range(0, len(order), self._options.batch):
            self._step(order[start : start + self._options.batch])

    def _step(self, rows: NDArray[np.int64]) -> None:
        given = self._rows.inputs(rows)
        for codes in (given.user, given.item):
            codes[torch.rand(len(codes)) < HIDDEN_IDS] = UNKNOWN
        self._optimiser.zero_grad()
        of_user, of_item = self._model.features(*given.tensors())
        found = self._model.rating(given.user, given.item, of_user, of_item)
        loss = functional.mse_loss(found, self._ratings[rows])
        loss = loss + MATCH_WEIGHT * match_loss(
            self._options.match, self._model, given, of_user, of_item
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()


def match_loss(
    kind: Contrast, model: TwoTowers, given: TowerInputs, of_user: Tensor, of_item: Tensor
) -> Tensor:
    """Draws pooled reviews to the id of their owner, and away from that of another in the batch.

    By direction alone, and through a layer of its own: how long ids are, and what the rating is
    made of, stays with the squared error.
    """
    user, item = model.match_user(of_user), model.match_item(of_item)
    return _match(kind, user, given.user, given.user_mask, model.factors.users.vector) + _match(
        kind, item, given.item, given.item_mask, model.factors.items.vector
    )


def _match(
    kind: Contrast, pooled: Tensor, codes: Tensor, mask: Tensor, table: nn.Embedding
) -> Tensor:
    usable = mask.any(dim=1) & (codes != UNKNOWN)
    own = codes[usable]
    anchors, ids = functional.normalize(pooled[usable]), functional.normalize(table(own))
    return contrast(kind, anchors, ids, own[:, None] == own[None, :])


def _groups(model: TwoTowers, options: TowerOptions) -> list[dict[str, object]]:
    """Parameters with the weight decay of their kind."""
    ids = list(model.factors.parameters())
    known = set(map(id, ids))
    others = [each for each in model.parameters() if id(each) not in known]
    return [
        {"params": ids, "weight_decay": options.id_decay},
        {"params": others, "weight_decay": options.weight_decay},
    ]
