from __future__ import annotations

import numpy as np
import pytest

from rankloom_adapters.calibration import Calibration
from rankloom_training.calibrate import calibration_errors, fit_calibration


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (2.0, -1.0), (0.3, 0.5)])
def test_the_calibration_curve_of_the_labels_is_found(slope: float, intercept: float) -> None:
    random = np.random.default_rng(0)
    score = 2 * random.normal(size=20_000)
    label = random.random(len(score)) < Calibration(slope, intercept).probability(score)
    found = fit_calibration(score, label)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept), abs=0.1)


def test_scores_that_rank_backwards_keep_their_order() -> None:
    score = np.linspace(-1, 1, 100)
    found = fit_calibration(score, score < 0)
    assert found.slope > 0
    assert (np.diff(found.probability(score)) > 0).all()


def test_balanced_training_shifts_probabilities_and_calibration_mends_them() -> None:
    """Of the rows 80 % are likes; scores as after training on as many likes as dislikes."""
    random = np.random.default_rng(1)
    natural = np.log(4.0) + random.normal(size=20_000)
    label = random.random(len(natural)) < Calibration().probability(natural)
    balanced = natural - np.log(4.0)
    errors = calibration_errors(fit_calibration(balanced, label), balanced, label)
    assert errors["ece_before"] > 0.2
    assert errors["ece_after"] < 0.02
