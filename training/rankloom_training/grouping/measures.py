"""How far groups are apart: silhouette, and Cohen's d of attributes and of whole groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import silhouette_samples


def silhouettes(directions: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """(users,) from −1 to 1: how much nearer a user is to the own group than to the next one.

    ``directions``: (users, dim) of length 1. Rousseeuw (1987), with the cosine distance that the
    router uses. NaN for one group, or as many groups as users.
    """
    if not 2 <= len(np.unique(group)) < len(group):
        return np.full(len(group), np.nan)
    return np.asarray(silhouette_samples(directions, group, metric="cosine"), np.float64)


def cohens_d(own: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """(columns,) difference of means in pooled standard deviations (Cohen, 1988, section 2.5).

    ``own``, ``others``: (rows, columns), NaN where unknown. NaN where a side has fewer than two
    known values or no column varies.
    """
    sizes = [(~np.isnan(rows)).sum(axis=0) for rows in (own, others)]
    means, variances = zip(*(_moments(rows) for rows in (own, others)), strict=True)
    freedom = sizes[0] + sizes[1] - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = sum((n - 1) * v for n, v in zip(sizes, variances, strict=True)) / freedom
        d = (means[0] - means[1]) / np.sqrt(pooled)
    enough = (np.minimum(*sizes) >= 2) & (pooled > 0.0)
    return np.where(enough, d, np.nan)


def separation(
    directions: NDArray[np.float64], group: NDArray[np.int64], centroids: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(groups,) Cohen's d of each group and the one that it is least apart from.

    Users are projected on the line between the two centroids, (groups, dim). Groups were made to
    be apart, so the figure compares groupings and proves none. NaN for fewer than two users.
    """
    num = len(centroids)
    apart = np.full((num, num), np.nan)
    for one, other in zip(*np.nonzero(~np.eye(num, dtype=np.bool_)), strict=True):
        along = (directions @ (centroids[one] - centroids[other]))[:, None]
        apart[one, other] = cohens_d(along[group == one], along[group == other])[0]
    return np.array([np.nanmin(row) if np.isfinite(row).any() else np.nan for row in apart])


def _moments(rows: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and unbiased variance of each column's known values."""
    known = ~np.isnan(rows)
    num = known.sum(axis=0)
    mean = np.where(known, rows, 0.0).sum(axis=0) / np.maximum(num, 1)
    squares = np.where(known, rows - mean, 0.0) ** 2
    return mean, squares.sum(axis=0) / np.maximum(num - 1, 1)
