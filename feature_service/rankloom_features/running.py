"""Sums and means over the first events of a history, for every number of events at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def inner_products(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m) inner products of rows (n, k) with others (m, k).

    In a plain matrix product the rounding of a value depends on the number of rows. Here a
    candidate has the same features alone as among others, and at a moment as in a cut history.
    """
    return np.asarray(np.einsum("nk,mk->nm", rows, others), np.float32)


def running_sums(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """(n + 1, …) float64 sums of the first 0, 1, …, n values (n, …), added one by one."""
    sums = np.zeros((len(values) + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def running_means(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """(n + 1,) means over the chosen ones of the first 0, 1, …, n values; NaN without one."""
    num = running_sums(chosen)
    return running_sums(np.where(chosen, values, 0.0)) / np.where(num > 0, num, np.nan)


def means_between(sums: Floats, first: NDArray[np.int64], end: NDArray[np.int64]) -> Floats:
    """(m, k) means of the values from ``first`` up to ``end``; NaN without one."""
    num = (end - first).astype(np.float64)
    return (sums[end] - sums[first]) / np.where(num > 0, num, np.nan)[:, None]
