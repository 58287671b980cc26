"""Turns scores into probabilities: Platt scaling."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class CalibrationError(ValueError):
    """The bytes are not a valid calibration."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """P(liked) = σ(slope · score + intercept) (Platt, 1999). The slope is positive."""

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 < self.slope < math.inf and math.isfinite(self.intercept)):
            raise CalibrationError(
                "calibration: slope and intercept must be finite, and the slope positive"
            )

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Maps (n,) scores to (n,) probabilities in the same order."""
        scores = np.asarray(scores, dtype=np.float64)
        with np.errstate(over="ignore"):  # exp overflows to ∞, which gives the correct limit: 0
            return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * scores + self.intercept))))

    def to_bytes(self) -> bytes:
        return json.dumps({"slope": self.slope, "intercept": self.intercept}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Calibration:
        """Raises CalibrationError."""
        try:
            fields = json.loads(data)
            return cls(float(fields["slope"]), float(fields["intercept"]))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CalibrationError("calibration: unreadable") from error
