"""Factors of items that users like in one session, by positive pointwise mutual information.

To factor such a matrix of words is what word2vec does (Levy and Goldberg, NIPS 2014, section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from rankloom_features.session_columns import DECAY, SESSION_S, WINDOW
from rankloom_training.data import Interactions
from rankloom_training.item_factors import strongest_factors

RANK = 64
PRIOR_PAIRS = 0.5  # added to found and expected pairs, so that one pair says little


def session_factors(
    log: Interactions, rows: NDArray[np.bool_], num_items: int
) -> NDArray[np.float32]:
    """(items, RANK): the product of two items' factors is near the logarithm of how much more
    often they are liked one soon after the other than by chance; 0 where that is not more often.

    ``rows``: (rows,) a mask of the likes to count.
    """
    return strongest_factors(_lift(_pairs(log, rows, num_items)), num_items, RANK)


def _pairs(log: Interactions, rows: NDArray[np.bool_], num_items: int) -> csr_matrix:
    """(items, items) how often two items are liked within a session, in either order.

    At most WINDOW likes lie between them, and each one makes the pair count less.
    """
    user, item, time = log.user[rows], log.item[rows], log.time[rows]
    pairs = csr_matrix((num_items, num_items))
    for lag in range(1, WINDOW + 1):
        near = (user[lag:] == user[:-lag]) & (time[lag:] - time[:-lag] < SESSION_S)
        at = item[:-lag][near], item[lag:][near]
        pairs += csr_matrix((np.full(near.sum(), DECAY ** (lag - 1)), at), pairs.shape)
    return csr_matrix(pairs + pairs.T)


def _lift(pairs: csr_matrix) -> csr_matrix:
    """log((found + prior) / (expected + prior)) where it is positive, but 0 on the diagonal."""
    totals, found = np.asarray(pairs.sum(axis=0)).ravel(), pairs.tocoo()
    expected = totals[found.row] * totals[found.col] / max(totals.sum(), 1.0)
    lift = np.log((found.data + PRIOR_PAIRS) / (expected + PRIOR_PAIRS))
    chosen = (lift > 0) & (found.row != found.col)
    return csr_matrix((lift[chosen], (found.row[chosen], found.col[chosen])), pairs.shape)
