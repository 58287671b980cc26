"""Columns of the trees' input that other models give. They stand behind the tabular ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

REVIEW_RATING = "review_rating"  # where there are reviews: what towers predict from them
COLLABORATIVE = "collaborative_logit"  # NaN for an item that the model does not know


def model_columns(*, rates_reviews: bool) -> tuple[str, ...]:
    """Their names, in order. ``rates_reviews``: whether there are towers of reviews."""
    return (REVIEW_RATING, COLLABORATIVE) if rates_reviews else (COLLABORATIVE,)


def with_columns(
    matrix: NDArray[np.float32], columns: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The matrix (n, columns) with further columns (n,) behind it."""
    joined = np.empty((len(matrix), matrix.shape[1] + len(columns)), np.float32)
    joined[:, : matrix.shape[1]] = matrix
    for at, column in enumerate(columns, matrix.shape[1]):
        joined[:, at] = column
    return joined
