"""gSASRec's loss is the paper's, and likes alone can be trained with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rankloom_features.fit import Examples, fit, score, validation_loss
from rankloom_features.histories import Histories
from rankloom_features.models.gsasrec import CALIBRATION, GSASRec, beta

NUM_ITEMS, DIM, NEGATIVES = 11, 8, 4


def examples(likes: int, seed: int) -> Examples:
    """Likes of even items, each before its negatives, which are odd items; nobody has a history."""
    random, num = np.random.default_rng(seed), likes * (1 + NEGATIVES)
    label = np.arange(num) % (1 + NEGATIVES) == 0
    item = 2 * random.integers(0, NUM_ITEMS // 2, num) + np.where(label, 0, 1)
    history = random.integers(0, NUM_ITEMS, num)
    at = np.arange(num)
    histories = Histories(history, label | True, np.full(num, np.nan), at, at + 1)
    return Examples(histories, item + 1, label)


def by_hand(logits: list[float], t: float) -> float:
    """The paper's gBCE of one like and its negatives; the like comes first."""
    alpha = NEGATIVES / (NUM_ITEMS - 1)
    power = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    like, *others = (1 / (1 + math.exp(-each)) for each in logits)
    return -(math.log(like**power) + sum(math.log(1 - each) for each in others)) / len(logits)


def test_the_loss_is_the_papers() -> None:
    torch.manual_seed(1)
    model, rows = GSASRec(NUM_ITEMS, DIM), examples(1, seed=0)
    found = validation_loss(model, rows, model.like_weight(NEGATIVES, NUM_ITEMS))
    assert found == pytest.approx(by_hand(score(model, rows).tolist(), CALIBRATION), rel=1e-6)
    assert found != pytest.approx(by_hand(score(model, rows).tolist(), 0.0), rel=1e-3)


@pytest.mark.parametrize("rate", [0.001, 0.3, 1.0])
def test_calibration_goes_from_plain_cross_entropy_to_the_sampling_rate(rate: float) -> None:
    assert beta(rate, 0.0) == pytest.approx(1.0)
    assert beta(rate, 1.0) == pytest.approx(rate)


def test_all_items_as_negatives_need_no_correction() -> None:
    assert GSASRec(NUM_ITEMS, DIM).like_weight(NUM_ITEMS - 1, NUM_ITEMS) == pytest.approx(1.0)


def test_it_learns_and_stops_early() -> None:
    torch.manual_seed(0)
    model, losses = GSASRec(NUM_ITEMS, DIM), list[float]()
    weight, valid = model.like_weight(NEGATIVES, NUM_ITEMS), examples(60, seed=1)
    best = fit(
        model,
        lambda epoch: examples(200, seed=1 + epoch),
        valid,
        seed=0,
        like_weight=weight,
        on_round=lambda number, loss: losses.append(loss),
    )
    assert best == pytest.approx(min(losses))
    assert best == pytest.approx(validation_loss(model, valid, weight), rel=1e-5)
    logits = score(model, valid)
    assert logits[valid.label].mean() > logits[~valid.label].mean() + 0.3
