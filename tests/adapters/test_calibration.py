from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankloom_adapters.calibration import Calibration, CalibrationError

slopes = st.floats(1e-3, 50)
intercepts = st.floats(-20, 20)


@settings(deadline=None)
@given(slopes, intercepts, st.lists(st.floats(-15, 15), min_size=2, max_size=20))
def test_probabilities_keep_the_order_of_scores(
    slope: float, intercept: float, scores: list[float]
) -> None:
    ordered = np.sort(np.array(scores))
    probability = Calibration(slope, intercept).probability(ordered)
    assert (np.diff(probability) >= 0).all()
    assert ((probability >= 0) & (probability <= 1)).all()


def test_the_formula() -> None:
    found = Calibration(2.0, -1.0).probability(np.array([0.5, 1.0]))
    assert found == pytest.approx([0.5, 1 / (1 + math.exp(-1.0))])


@settings(deadline=None)
@given(slopes, intercepts)
def test_bytes_round_trip_exactly(slope: float, intercept: float) -> None:
    calibration = Calibration(slope, intercept)
    assert Calibration.from_bytes(calibration.to_bytes()) == calibration


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_scores_saturate_without_a_warning(dtype: type[np.floating]) -> None:
    found = Calibration().probability(np.array([-1e4, 1e4], dtype=dtype))
    assert found.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (1.0, math.nan), (1.0, math.inf)],
)
def test_a_slope_that_is_not_positive_is_refused(slope: float, intercept: float) -> None:
    with pytest.raises(CalibrationError):
        Calibration(slope, intercept)
    with pytest.raises(CalibrationError):
        Calibration.from_bytes(json.dumps({"slope": slope, "intercept": intercept}).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b'{"slope": 1}',
        b'{"slope": null, "intercept": 0}',
        b'{"slope": "steep", "intercept": 0}',
        b'{"slope": 1' + b"0" * 400 + b', "intercept": 0}',
        b"[" * 100_000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_bytes_that_are_no_calibration_are_refused(data: bytes) -> None:
    with pytest.raises(CalibrationError):
        Calibration.from_bytes(data)
