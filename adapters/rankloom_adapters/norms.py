"""How much an expert changes each module, and whether that is far from what is usual.

A file may be sound and its numbers still be wrong: a learning rate that ran away, a scale
applied twice. Such an expert is found by the size of its ΔW = scale · B A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from rankloom_adapters.expert import Expert, ExpertError, Factors

MIN_OTHERS = 3
# Healthy ones are within three times the usual, either way: at most 9 times the median of
# the others. A hundred times any of them is at least 11 times that.
MAX_MEDIANS = 10.0
# A linear layer turns inputs of size 1 into outputs of about norm / √d_out, which is about
# 1 in a trained model. A delta with a hundred times that leaves nothing of the model.
MAX_GAIN = 100.0


def module_norms(expert: Expert) -> Mapping[str, float]:
    """Frobenius norm of each module's delta, without forming the delta."""
    return {
        module: abs(expert.scale) * _product_norm(pair) for module, pair in expert.modules.items()
    }


def check_norms(expert: Expert, others: Sequence[Expert]) -> None:
    """Refuses an expert that changes a module far more than others do. Raises ExpertError.

    ``others``: the other experts of its bundle and those it had before. A norm may be
    MAX_MEDIANS times the median of theirs, where MIN_OTHERS of them change the module at
    all; whoever they are, it may be MAX_GAIN · √d_out.
    """
    theirs = [module_norms(other) for other in others]
    for module, norm in module_norms(expert).items():
        largest = MAX_GAIN * math.sqrt(expert.modules[module].b.shape[0])
        if norm > largest:
            raise ExpertError(expert.name, f"{module}: norm {norm:.3g}; {largest:.3g} is the most")
        # An expert that leaves a module alone says nothing of how much is usual.
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
    return math.sqrt(max(squared, 0.0))  # rounding may leave less than nothing
