from __future__ import annotations

import numpy as np
import pytest

from rankloom_adapters.calibration import Calibration
from rankloom_training.calibrate import fit_calibration


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
