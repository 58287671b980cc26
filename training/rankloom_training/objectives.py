"""What experts are taught: losses over the answers of a batch of windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from rankloom_training.options import ObjectiveName, Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the model answers for each row of a batch, beside the truth.

    ``logit``: (rows,) the score, margin + tree logit. ``label``: (rows,) 1 for a like, else 0.
    ``sizes``: rows of each window. ``has_text``: (rows,) whether words follow the verdict.
    ``token_loss``: gives (rows,) the mean cross-entropy of an answer's tokens, the verdict first.
    """

    logit: Tensor
    label: Tensor
    sizes: Sequence[int]
    has_text: Tensor
    token_loss: Callable[[], Tensor]

    def verdict_loss(self) -> Tensor:
        """(rows,) log-loss of the verdicts."""
        return functional.binary_cross_entropy_with_logits(self.logit, self.label, reduction="none")


class Objective(Protocol):
    """A loss over answers, to be made small."""

    def loss(self, answers: Answers) -> Tensor:
        """() the loss; differentiable."""
        ...


@dataclass(frozen=True, slots=True)
class VerdictLoss:
    """Mean log-loss of the verdicts."""

    def loss(self, answers: Answers) -> Tensor:
        return answers.verdict_loss().mean()


@dataclass(frozen=True, slots=True)
class PairwiseLoss:
    """Mean over windows of softplus(disliked − liked), the mean over a window's pairs.

    A window of one class counts as 0.
    """

    def loss(self, answers: Answers) -> Tensor:
        sizes = list(answers.sizes)
        windows = zip(answers.logit.split(sizes), answers.label.split(sizes), strict=True)
        return torch.stack([_pair_loss(*window) for window in windows]).mean()


@dataclass(frozen=True, slots=True)
class TraceLoss:
    """Mean token cross-entropy of the answers that have words; 0 if none has.

    The verdict stands first among the tokens (ReasoningRec trains on such completions alone).
    """

    def loss(self, answers: Answers) -> Tensor:
        if not answers.has_text.any():
            return answers.logit.sum() * 0.0
        return answers.token_loss()[answers.has_text].mean()


@dataclass(frozen=True, slots=True)
class MixedLoss:
    """ThinkRec's loss (equation 7): verdict and tokens of an answer, weighted by its kind.

    ``plain``, ``reasoned``: the weights of the verdict's log-loss and of the tokens'
    cross-entropy, for answers without words and with them.
    """

    plain: tuple[float, float] = (0.9, 0.1)
    reasoned: tuple[float, float] = (0.1, 0.9)

    def loss(self, answers: Answers) -> Tensor:
        losses = torch.stack([answers.verdict_loss(), answers.token_loss()], dim=1)
        weights = losses.new_tensor([self.plain, self.reasoned])[answers.has_text.long()]
        return (losses * weights).sum(dim=1).mean()


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """A weighted sum of objectives."""

    terms: tuple[tuple[float, Objective], ...]

    def loss(self, answers: Answers) -> Tensor:
        return torch.stack([weight * term.loss(answers) for weight, term in self.terms]).sum()


def objective_of(recipe: Recipe, *, has_text: bool) -> Objective:
    """What a recipe asks for. ``has_text``: some row has words; else verdicts are all there is."""
    answer: Objective = VerdictLoss()
    if has_text:
        answer = MixedLoss() if recipe.objective is ObjectiveName.MIXED else TraceLoss()
    return WeightedSum(((1.0, answer), (recipe.pairwise, PairwiseLoss())))


def _pair_loss(logit: Tensor, label: Tensor) -> Tensor:
    gaps = logit[label > 0][:, None] - logit[label == 0][None, :]
    return functional.softplus(-gaps).mean() if gaps.numel() else logit.sum() * 0.0
