"""The bounds of the gates, as an operator sets them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankloom_adapters.rollout.evidence import DEFAULT_TOP_K

_WHOLE = {"min_samples": 2, "min_group_samples": 2, "top_k": 1, "max_checks": 1}
_WITHIN = {
    "min_topk_overlap": (0.0, 1.0),
    "min_kendall": (-1.0, 1.0),
    "min_recall_overlap": (0.0, 1.0),
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
    """Bounds of the gates. A value breaches a gate if it is beyond the bound and significant.

    Samples are users, in each arm: the rankings of one user are alike, so that a thousand of
    them say little about other users. Raises ValueError.
    """

    min_samples: int = 200
    """With fewer users, a gate has no data, and no revision passes."""
    min_group_samples: int = 50
    """A group with fewer users is not judged alone."""
    top_k: int = DEFAULT_TOP_K
    """The number of top items that a shadow is compared by."""
    min_topk_overlap: float = 0.6
    """Mean share of the top items that the shadow must have too."""
    min_kendall: float = 0.5
    """Mean τ_b of the active revision's and the shadow's scores."""
    min_recall_overlap: float = 0.5
    """Mean share of the retrieved items that the shadow must retrieve too."""
    max_psi: float = 0.25
    """Population stability index; in credit scoring, a value above 0.25 is a real shift."""
    max_ks: float = 0.2
    """Kolmogorov-Smirnov distance: the largest difference of the distribution functions."""
    max_tie_rate_increase: float = 0.02
    """Share of candidates that share their score with another one."""
    max_calibration_shift: float = 0.05
    """Change of the mean probability, up or down."""
    max_agreement_shift: float = 0.1
    """Change of the mean τ_b of tree logit and score, up or down."""
    max_error_increase: float = 0.005
    """Share of rankings that the engine did not answer."""
    max_latency_ratio: float = 1.1
    """Ratio of the geometric means, and of the 95th percentiles."""
    false_alarms: float = 0.01
    """The share of harmless rollouts that may be breached by chance."""
    max_checks: int = 10
    """The number of checks that share half of the false alarms; later checks share the rest."""

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
        for name, (low, high) in _WITHIN.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; give a number from {low:g} to {high:g}")
            if math.isinf(value):
                raise ValueError(f"{name} is infinite; give a finite bound")
        if not 0.0 < self.false_alarms < 1.0:
            raise ValueError(
                f"false_alarms is {self.false_alarms}; give a number above 0 and below 1"
            )

    def level(self, num_tests: int, check: int = 1) -> float:
        """The significance level of each test in a check; ``check`` counts from 1.

        Bonferroni's correction, which holds however tests and checks depend on each other. A
        trial has no fixed end, so late checks get 1/2 · 1/(k (k + 1)), which sums to 1/2.
        """
        late = check - self.max_checks
        share = 1.0 / self.max_checks if late <= 0 else 1.0 / (late * (late + 1))
        return 0.5 * share * self.false_alarms / num_tests
