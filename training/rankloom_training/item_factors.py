"""Factors of items from a matrix of users and items, by singular value decomposition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import aslinearoperator, eigsh

FACTOR_RANK = 24
NOISE = float(np.finfo(np.float32).eps) ** 2  # share of the largest squared singular value


def item_factors(matrix: csr_matrix, shrinkage: float) -> NDArray[np.float32]:
    """(items, FACTOR_RANK) factors of the shrunk cosine between items' columns, strongest last.

    Factors of a singular value near zero are set to zero: the solver finds only noise there.
    """
    square = np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel()
    scaled = aslinearoperator(matrix.multiply(1.0 / np.sqrt(square + shrinkage)).tocsr())
    factors = np.zeros((len(square), FACTOR_RANK), np.float32)
    rank = min(FACTOR_RANK, len(square) - 1)
    if rank and square.any():
        # The solver restarts from a random vector when it breaks down, so it needs a fixed seed.
        strength, found = eigsh(scaled.T @ scaled, k=rank, rng=np.random.default_rng(0))
        known = strength > NOISE * strength.max()
        factors[:, FACTOR_RANK - known.sum() :] = found[:, known] * np.sqrt(strength[known])
    return factors
