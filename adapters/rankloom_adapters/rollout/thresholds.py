"""How much worse a revision on trial may be, as its operator writes it down."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankloom_adapters.rollout.evidence import DEFAULT_TOP_K

_WHOLE = {"min_samples": 2, "min_group_samples": 2, "top_k": 1, "max_checks": 1}
_WITHIN = {
    "min_topk_overlap": (0.0, 1.0),
    "min_kendall": (-1.0, 1.0),
    "max_psi": (0.0, math.inf),
    "max_ks": (0.0, 1.0),
    "max_tie_rate_increase": (0.0, 1.0),
    "max_calibration_shift": (0.0, 1.0),
    "max_agreement_shift": (0.0, 2.0),
    "max_error_increase": (0.0, 1.0),
    "max_latency_ratio": (1.0, math.inf),
    "false_alarms": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Bounds of the gates. A breach is both beyond its bound and unlikely by chance.

    Samples are users, in each arm: a user's rankings are alike, so that a thousand of one
    user say little about the others. Raises ValueError.
    """

    min_samples: int = 200
    """Fewer than these prove nothing, and no revision passes on them."""
    min_group_samples: int = 50
    """A group with fewer is not judged alone."""
    top_k: int = DEFAULT_TOP_K
    """How many of a list's best are compared, in a shadow."""
    min_topk_overlap: float = 0.6
    """Share of the best that a shadow must name too, in the mean."""
    min_kendall: float = 0.5
    """τ_b of the active one's and the shadow's scores, in the mean."""
    max_psi: float = 0.25
    """Population stability index; above 0.25 is a real shift in credit scoring."""
    max_ks: float = 0.2
    """Kolmogorov and Smirnov's distance: so many users have changed sides somewhere."""
    max_tie_rate_increase: float = 0.02
    """Share of candidates whose score another one has too."""
    max_calibration_shift: float = 0.05
    """Of the mean probability, up or down."""
    max_agreement_shift: float = 0.1
    """Of the mean τ_b of tree logit and score, up or down."""
    max_error_increase: float = 0.005
    """Share of rankings that the engine did not answer."""
    max_latency_ratio: float = 1.1
    """Of the geometric means, and of the 95th percentiles."""
    false_alarms: float = 0.01
    """How many of the rollouts that change nothing may be breached, as a share."""
    max_checks: int = 10
    """Over how many checks half of the false alarms are spread; later ones share the rest."""

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} is {value!r}: give a whole number from {least} up")
        for name, (low, high) in _WITHIN.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}: give a number from {low:g} to {high:g}")
            if math.isinf(value):
                raise ValueError(f"{name} is infinite: give a bound that can be reached")
        if not 0.0 < self.false_alarms < 1.0:
            raise ValueError("false_alarms must be above 0 and below 1, or no gate can be breached")

    def level(self, num_tests: int, check: int = 1) -> float:
        """The chance of a false alarm that each test of a check, numbered from 1, may have.

        Bonferroni's shares: tests and checks may depend on each other as they like. A trial may
        go on for ever, so the shares of the late checks are 1/2 · 1/(k (k + 1)), whose sum is 1/2.
        """
        late = check - self.max_checks
        share = 1.0 / self.max_checks if late <= 0 else 1.0 / (late * (late + 1))
        return 0.5 * share * self.false_alarms / num_tests
