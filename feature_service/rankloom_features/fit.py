"""Trains a collaborative model on likes and dislikes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rankloom_features.encoder import MAX_EVENTS
from rankloom_features.histories import Histories
from rankloom_features.models.base import CollaborativeModel

BATCH = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1.0  # without it, these models overfit within an epoch
MAX_ROUNDS = 20
PATIENCE = 2
# A log of twice as many rows is trained on in rounds of about so many: early stopping need not wait
# for the end of an epoch of minutes. Its batches are larger, since each one decays all items.
ROUND_ROWS = 1_000_000
LARGE_BATCH = 1024
VALID_ROWS = 200_000  # at most so many say when to stop


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows for training or validation.

    ``histories``: n, the events before each row. ``target``: (n,) the row's item, numbered from
    1. ``label``: (n,) whether it was liked.
    """

    histories: Histories
    target: NDArray[np.int64]
    label: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.target)

    def only(self, rows: NDArray[np.bool_]) -> Examples:
        """The examples where ``rows``, a mask, is true."""
        return Examples(self.histories.only(rows), self.target[rows], self.label[rows])

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """The examples of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            Histories.joined([part.histories for part in parts]),
            np.concatenate([part.target for part in parts]),
            np.concatenate([part.label for part in parts]),
        )


def fit(
    model: CollaborativeModel,
    train: Callable[[int], Examples],
    valid: Examples,
    *,
    seed: int,
    like_weight: float = 1.0,
    on_round: Callable[[int, float], None] = lambda number, loss: None,
) -> float:
    """Trains in place and keeps the round with the lowest validation log-loss; returns that loss.

    A round is an epoch, or of a large log the next ROUND_ROWS rows of one. ``train``: the examples
    of an epoch, from 1; sampled negatives differ from epoch to epoch. ``like_weight``: of a like's
    loss, in training and validation. ``on_round``: called with each round's number, from 1, and its
    validation log-loss.
    """
    torch.manual_seed(seed)
    valid = _some(valid, VALID_ROWS, seed)
    best_loss = validation_loss(model, valid, like_weight)
    best, since = copy.deepcopy(model.state_dict()), 0
    rounds = _rounds(model, train, seed, like_weight)
    for number, _ in zip(range(1, MAX_ROUNDS + 1), rounds, strict=False):
        loss = validation_loss(model, valid, like_weight)
        on_round(number, loss)
        if loss < best_loss:
            best, best_loss, since = copy.deepcopy(model.state_dict()), loss, 0
        else:
            since += 1
        if since == PATIENCE:
            break
    model.load_state_dict(best)
    model.eval()
    return best_loss


def num_rounds(num_rows: int) -> int:
    """In how many rounds an epoch of so many rows is trained on; more than one for a large log."""
    return max(num_rows // ROUND_ROWS, 1)


def _rounds(
    model: CollaborativeModel, train: Callable[[int], Examples], seed: int, like_weight: float
) -> Iterator[None]:
    """Trains on one round after the other, without end; each row once an epoch."""
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    for epoch in itertools.count(1):
        examples, random = train(epoch), np.random.default_rng((seed, epoch))
        num = num_rounds(len(examples))
        batch = LARGE_BATCH if num > 1 else BATCH
        for rows in np.array_split(random.permutation(len(examples)), num):
            _train_round(model, examples, _batches(rows, batch), optimiser, like_weight)
            yield


def _some(examples: Examples, most: int, seed: int) -> Examples:
    """All, or of many some at random."""
    if len(examples) <= most:
        return examples
    chosen = np.zeros(len(examples), np.bool_)
    chosen[np.random.default_rng(seed).permutation(len(examples))[:most]] = True
    return examples.only(chosen)


def forget_untrained(model: CollaborativeModel, trained: NDArray[np.int64]) -> None:
    """Zeroes the vectors of items without a training row, because they are only noise.

    ``trained``: catalogue indices of the items with training rows.
    """
    keep = torch.zeros(model.vectors.num_embeddings, 1)
    keep[torch.from_numpy(trained) + 1] = 1.0
    with torch.no_grad():
        model.vectors.weight.mul_(keep)
        model.item_bias.weight.mul_(keep)


def add_to_biases(model: CollaborativeModel, added: NDArray[np.float64]) -> None:
    """``added``: (items,), for each catalogue index."""
    with torch.no_grad():
        model.item_bias.weight[1:, 0] += torch.from_numpy(added).float()


@torch.inference_mode()
def score(model: CollaborativeModel, examples: Examples) -> NDArray[np.float32]:
    """(n,) liking logits of the examples' targets."""
    model.eval()
    logits = [_logits(model, examples, rows).numpy() for rows in _batches(np.arange(len(examples)))]
    return np.concatenate(logits) if logits else np.zeros(0, dtype=np.float32)


@torch.inference_mode()
def validation_loss(
    model: CollaborativeModel, examples: Examples, like_weight: float = 1.0
) -> float:
    """Mean log-loss; a like's is taken ``like_weight`` times."""
    model.eval()
    total = sum(
        float(_loss(model, examples, rows, like_weight, reduction="sum"))
        for rows in _batches(np.arange(len(examples)))
    )
    return total / max(len(examples), 1)


def _train_round(
    model: CollaborativeModel,
    train: Examples,
    batches: Iterator[NDArray[np.int64]],
    optimiser: torch.optim.Optimizer,
    like_weight: float,
) -> None:
    model.train()
    for rows in batches:
        optimiser.zero_grad()
        _loss(model, train, rows, like_weight, reduction="mean").backward()
        optimiser.step()


def _batches(order: NDArray[np.int64], size: int = BATCH) -> Iterator[NDArray[np.int64]]:
    for at in range(0, len(order), size):
        yield order[at : at + size]


def _loss(
    model: CollaborativeModel,
    examples: Examples,
    rows: NDArray[np.int64],
    like_weight: float,
    *,
    reduction: str,
) -> Tensor:
    label = torch.from_numpy(examples.label[rows]).float()
    logits = _logits(model, examples, rows)
    weight = None if like_weight == 1.0 else torch.tensor(like_weight)
    return functional.binary_cross_entropy_with_logits(
        logits, label, pos_weight=weight, reduction=reduction
    )


def _logits(model: CollaborativeModel, examples: Examples, rows: NDArray[np.int64]) -> Tensor:
    items, liked = examples.histories.only(rows).newest(MAX_EVENTS)
    target = torch.from_numpy(examples.target[rows])[:, None]
    _, logits = model(torch.from_numpy(items), torch.from_numpy(liked), target)
    return cast("Tensor", logits[:, 0])


@contextmanager
def one_thread() -> Iterator[None]:
    """For small operations: more threads gain little, and cost a lot on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
