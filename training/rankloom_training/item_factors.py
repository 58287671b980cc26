"""Factors of items from a matrix of users and items, by singular value decomposition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh

FACTOR_RANK = 24
NOISE = float(np.finfo(np.float32).eps) ** 2  # share of the largest squared singular value


def item_factors(matrix: csr_matrix, shrinkage: float) -> NDArray[np.float32]:
    """(items, FACTOR_RANK) factors of the shrunk cosine between items' columns, strongest last.

    Factors of a singular value near zero are set to zero: the solver finds only noise there.
    """
    square = np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel()
    scaled = aslinearoperator(matrix.multiply(1.0 / np.sqrt(square + shrinkage)).tocsr())
    return strongest_factors(scaled.T @ scaled, len(square), FACTOR_RANK)


def strongest_factors(
    products: LinearOperator | csr_matrix, num_items: int, rank: int
) -> NDArray[np.float32]:
    """(items, rank) factors whose products are nearest to ``products``, (items, items) and
    symmetric; strongest last, and zero where there are fewer of positive strength.
    """
    factors = np.zeros((num_items, rank), np.float32)
    possible = min(rank, num_items - 1)
    # The solver restarts from a random vector when it breaks down, so it needs a fixed seed.
    random = np.random.default_rng(0)
    if possible and np.any(products @ random.random(num_items)):
        strength, found = eigsh(products, k=possible, which="LA", rng=random)
        known = strength > NOISE * strength.max()
        factors[:, rank - known.sum() :] = found[:, known] * np.sqrt(strength[known])
    return factors
