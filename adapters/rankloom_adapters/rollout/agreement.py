"""Measures the agreement of two score lists of the same candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def kendall(one: Scores, other: Scores) -> float:
    """Kendall's τ_b of two (candidates,) lists; NaN where one of them is constant.

    τ_b = (C − D) / √(N₁ N₂) over pairs of candidates: C concordant, D discordant, N₁ and
    N₂ not tied in either list (Kendall, "The treatment of ties in ranking problems", 1945).
    """
    above, above_too = one[:, None] > one, other[:, None] > other
    num_untied = np.count_nonzero(above) * np.count_nonzero(above_too)
    if not num_untied:
        return math.nan
    below_too = other[:, None] < other
    excess = np.count_nonzero(above & above_too) - np.count_nonzero(above & below_too)
    return excess / math.sqrt(num_untied)


def tie_rate(scores: Scores) -> float:
    """Share of the candidates that share their score with another one."""
    _, counts = np.unique(scores, return_counts=True)
    return float(counts[counts > 1].sum()) / len(scores)


def topk_overlap(one: Scores, other: Scores, k: int) -> float:
    """Share of the top k that both lists have in common; k is at most the length of a list.

    Of equal scores the first is the better one, as in a response.
    """
    k = min(k, len(one))
    return len(np.intersect1d(_best(one, k), _best(other, k))) / k


def recall_overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the item ids of a list, not an empty one, that the other list has too."""
    return len(set(one) & set(other)) / len(set(one))


def _best(scores: Scores, k: int) -> NDArray[np.int64]:
    return np.argsort(-scores, kind="stable")[:k]
