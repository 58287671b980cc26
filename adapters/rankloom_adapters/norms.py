"""Finds experts whose weight deltas are far too large.

A file may be valid and its numbers still wrong, for example after a diverged training or with
a scale that was applied twice. The norm of ΔW = scale · B A shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from rankloom_adapters.expert import Expert, ExpertError, Factors

MIN_OTHERS = 3
# Norms of good experts are within a factor of 3 of the usual one, so that each is at most 9 times
# the median of the others. A good norm times 100 is at least 11 times the median.
MAX_MEDIANS = 10.0
# A linear layer turns inputs of size 1 into outputs of about norm / √d_out, which is about 1 in a
# trained model. A delta with 100 times that drowns the model.
MAX_GAIN = 100.0


def module_norms(expert: Expert) -> Mapping[str, float]:
    """Frobenius norm of each module's delta, without forming the delta."""
    return {
        module: abs(expert.scale) * _product_norm(pair) for module, pair in expert.modules.items()
    }


def check_norms(expert: Expert, others: Sequence[Expert]) -> None:
    """Refuses an expert that changes a module far more than others do. Raises ExpertError.

    ``others``: the other experts of the bundle, and earlier versions. A norm may be up to
    MAX_GAIN · √d_out, and up to MAX_MEDIANS times the median of the others if at least
    MIN_OTHERS of them change the module.
    """
    theirs = [module_norms(other) for other in others]
    for module, norm in module_norms(expert).items():
        largest = MAX_GAIN * math.sqrt(expert.modules[module].b.shape[0])
        if not norm <= largest:
            raise ExpertError(
                expert.name, f"{module}: norm {norm:.3g}; at most {largest:.3g} is allowed"
            )
        # An expert that does not change the module says nothing about the usual size.
        usual = [norms[module] for norms in theirs if norms.get(module)]
        if len(usual) >= MIN_OTHERS and norm > MAX_MEDIANS * median(usual):
            raise ExpertError(
                expert.name,
                f"{module}: norm {norm:.3g}, an outlier; the others' median is {median(usual):.3g}",
            )


def _product_norm(pair: Factors) -> float:
    """√trace((BᵀB)(AAᵀ)), in float64: two (r, r) matrices instead of one (d_out, d_in)."""
    a, b = pair.a.astype(np.float64), pair.b.astype(np.float64)
    squared = float(((b.T @ b) * (a @ a.T)).sum())
    return math.sqrt(max(squared, 0.0))  # rounding may give a negative number
