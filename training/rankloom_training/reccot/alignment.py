"""Trains a text encoder on reviews and their rationales, so that its vectors tell ratings.

RecCoT's fast semantic alignment: regression of the rating from the vector. Beside it, reviews of
one rating are drawn together and those of another apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rankloom_training.reccot.contrast import Contrast, contrast
from rankloom_training.reccot.text_model import TextModel, merge_lora, with_lora

WEIGHT_DECAY = 0.01
LORA_RANK, LORA_DROPOUT = 32, 0.2  # of a pretrained model, as in the paper's code
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class AlignmentOptions:
    """``learning_rate``: of a small model; a pretrained one learns LoRA at a fifth of it."""

    epochs: int = 3
    batch: int = 32
    learning_rate: float = 1e-3
    contrast: Contrast = Contrast.TRIPLET
    contrast_weight: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RatedTexts:
    """``ratings``: (texts,) float64."""

    texts: Sequence[str]
    ratings: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.texts)


class _Regression(nn.Module):
    def __init__(self, encoder: TextModel, mean: float) -> None:
        super().__init__()
        self.encoder, self.mean = encoder, mean
        self.head = nn.Linear(encoder.dim, 1)

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(n, dim) vectors and (n,) ratings."""
        vectors = self.encoder.vectors(self.encoder.windows.windows(texts), len(texts))
        return vectors, self.mean + self.head(vectors)[:, 0]


def align(
    encoder: TextModel,
    training: RatedTexts,
    validation: RatedTexts,
    options: AlignmentOptions,
    on_step: OnStep,
) -> float:
    """Trains ``encoder`` in place; its best epoch on validation texts stays. Returns their MSE."""
    torch.manual_seed(options.seed)
    rate = options.learning_rate
    if encoder.is_pretrained:
        rate /= 5
        with_lora(encoder, LORA_RANK, LORA_DROPOUT)
    model = _Regression(encoder, float(training.ratings.mean()))
    best = _epochs(model, training, validation, options, rate, on_step)
    if encoder.is_pretrained:
        merge_lora(encoder)
    encoder.eval().requires_grad_(False)
    return best


def _epochs(
    model: _Regression,
    training: RatedTexts,
    validation: RatedTexts,
    options: AlignmentOptions,
    rate: float,
    on_step: OnStep,
) -> float:
    random = np.random.default_rng(options.seed)
    learnt = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learnt, rate, weight_decay=WEIGHT_DECAY)
    best, kept = np.inf, copy.deepcopy(model.state_dict())
    for epoch in range(options.epochs):
        model.train()
        for rows in _batches(len(training), options.batch, random):
            optimiser.zero_grad()
            _loss(model, training, rows, options).backward()
            nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
        if (error := _mse(model.eval(), validation, options.batch)) < best:
            best, kept = error, copy.deepcopy(model.state_dict())
        on_step(epoch + 1, options.epochs)
    model.load_state_dict(kept)
    return float(best)


def _loss(
    model: _Regression, training: RatedTexts, rows: NDArray[np.int64], options: AlignmentOptions
) -> Tensor:
    vectors, found = model([training.texts[row] for row in rows])
    ratings = torch.from_numpy(training.ratings[rows]).float()
    loss = functional.mse_loss(found, ratings)
    return loss + options.contrast_weight * _by_rating(options.contrast, vectors, ratings)


def _by_rating(kind: Contrast, vectors: Tensor, ratings: Tensor) -> Tensor:
    """Another review of the same rating is right for each, if the batch has one."""
    same = ratings.round()[:, None] == ratings.round()[None, :]
    others = same & ~torch.eye(len(same), dtype=torch.bool)
    paired = torch.nonzero(others.any(dim=1))[:, 0]
    if not len(paired):
        return vectors.new_zeros(())
    partner = torch.multinomial(others[paired].float(), 1)[:, 0]
    return contrast(kind, vectors[paired], vectors[partner], same[paired][:, partner])


@torch.inference_mode()
def _mse(model: _Regression, rated: RatedTexts, batch: int) -> float:
    found = [
        model(rated.texts[start : start + batch])[1].numpy()
        for start in range(0, len(rated), batch)
    ]
    return float(np.mean((np.concatenate(found) - rated.ratings) ** 2))


def _batches(number: int, size: int, random: np.random.Generator) -> list[NDArray[np.int64]]:
    order = random.permutation(number)
    return [order[start : start + size] for start in range(0, number, size)]
