"""Each objective beside its formula, worked out by hand with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankloom_training.objectives import (
    Answers,
    MixedLoss,
    Objective,
    PairwiseLoss,
    TraceLoss,
    VerdictLoss,
    WeightedSum,
    objective_of,
)
from rankloom_training.options import DEFAULTS, Recipe, RecipeName

LOGIT = np.array([2.0, -1.0, 0.5, 0.25])
LABEL = np.array([1.0, 0.0, 0.0, 1.0])
TOKEN_LOSS = np.array([0.3, 1.2, 0.7, 2.0])
HAS_TEXT = np.array([False, True, False, True])
SIZES = (3, 1)


def answers(*, has_text: np.ndarray = HAS_TEXT) -> Answers:
    return Answers(
        torch.tensor(LOGIT, requires_grad=True),
        torch.tensor(LABEL),
        SIZES,
        torch.tensor(has_text),
        lambda: torch.tensor(TOKEN_LOSS),
    )


def log_loss() -> np.ndarray:
    chance = 1.0 / (1.0 + np.exp(-LOGIT))
    return np.asarray(-(LABEL * np.log(chance) + (1.0 - LABEL) * np.log(1.0 - chance)))


def pairs() -> float:
    """The first window has one like and two dislikes; the second has one class only."""
    return float(np.mean([np.log1p(np.exp(-1.0 - 2.0)), np.log1p(np.exp(0.5 - 2.0))])) / 2


def test_verdict_is_the_mean_log_loss() -> None:
    assert VerdictLoss().loss(answers()).item() == pytest.approx(log_loss().mean())


def test_pairwise_compares_likes_and_dislikes_of_one_window() -> None:
    assert PairwiseLoss().loss(answers()).item() == pytest.approx(pairs())


def test_trace_is_the_mean_over_answers_with_words() -> None:
    assert TraceLoss().loss(answers()).item() == pytest.approx((1.2 + 2.0) / 2)
    assert TraceLoss().loss(answers(has_text=HAS_TEXT & False)).item() == 0.0


def test_a_recipe_chooses_its_objective() -> None:
    thinkrec, pairwise = Recipe(1, 1e-3, pairwise=0.0), Recipe(1, 1e-3, pairwise=0.5)
    assert objective_of(thinkrec, has_text=False).loss(answers()).item() == pytest.approx(
        log_loss().mean()
    )
    assert objective_of(thinkrec, has_text=True).loss(answers()) == MixedLoss().loss(answers())
    assert objective_of(pairwise, has_text=False).loss(answers()).item() == pytest.approx(
        log_loss().mean() + 0.5 * pairs()
    )


def test_reasoningrec_learns_from_tokens_alone() -> None:
    recipe = DEFAULTS[RecipeName.REASONINGREC].global_recipe
    assert objective_of(recipe, has_text=True).loss(answers()).item() == pytest.approx(
        (1.2 + 2.0) / 2
    )
    assert objective_of(recipe, has_text=False).loss(answers()).item() == pytest.approx(
        log_loss().mean()
    )


def test_mixed_weighs_the_two_cases_as_thinkrec_does() -> None:
    plain, reasoned = 0.9 * log_loss() + 0.1 * TOKEN_LOSS, 0.1 * log_loss() + 0.9 * TOKEN_LOSS
    expected = np.where(HAS_TEXT, reasoned, plain).mean()
    assert MixedLoss().loss(answers()).item() == pytest.approx(expected)


def test_a_sum_weighs_its_terms() -> None:
    both = WeightedSum(((1.0, VerdictLoss()), (0.3, PairwiseLoss())))
    assert both.loss(answers()).item() == pytest.approx(log_loss().mean() + 0.3 * pairs())


@pytest.mark.parametrize("objective", [VerdictLoss(), PairwiseLoss(), TraceLoss(), MixedLoss()])
def test_a_window_of_one_class_without_words_has_a_gradient(objective: Objective) -> None:
    given = Answers(
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.ones(2),
        (2,),
        torch.zeros(2, dtype=torch.bool),
        lambda: torch.zeros(2),
    )
    objective.loss(given).backward()
    assert given.logit.grad is not None
    assert given.logit.grad.isfinite().all()
