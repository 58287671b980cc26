"""Maximal marginal relevance: good items that differ (Carbonell and Goldstein, SIGIR 1998)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def most_marginal(
    relevance: NDArray[np.floating],
    vectors: NDArray[np.floating],
    num: int,
    diversity: float,
) -> NDArray[np.int64]:
    """(num,) indices of the chosen items, in the order of the choice; fewer without more items.

    Each choice has the largest λ r_i − (1 − λ) max_j cos(v_i, v_j) over the items j chosen before,
    with λ = 1 − ``diversity``; of equal ones, the first is taken. ``relevance``: (n,), from 0 to
    1. ``vectors``: (n, dim); a zero vector resembles nothing.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0.0)
    nearest, left = np.zeros(len(units)), np.ones(len(units), np.bool_)
    chosen = np.zeros(min(num, len(units)), np.int64)
    for place in range(len(chosen)):
        gain = (1.0 - diversity) * relevance - diversity * nearest
        chosen[place] = best = int(np.argmax(np.where(left, gain, -np.inf)))
        left[best] = False
        similar = units @ units[best]
        nearest = similar if place == 0 else np.maximum(nearest, similar)
    return chosen


def scaled(scores: NDArray[np.floating], scored: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) relevance from 0 to 1: the worst of the scored is 0, the best 1; unscored ones are 0.

    Where nothing is scored by a model, all are scaled by what gave their order.
    """
    counts = scored if scored.any() else np.ones_like(scored)
    relevance = np.zeros(len(scores))
    low, high = scores[counts].min(), scores[counts].max()
    if high > low:
        relevance[counts] = (scores[counts] - low) / (high - low)
    return relevance
