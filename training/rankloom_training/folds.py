"""The folds of users that out-of-fold logits are made with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_FOLDS = 5


def user_folds(num_users: int, seed: int) -> NDArray[np.int64]:
    """(users,) the fold of each user."""
    return np.random.default_rng(seed).integers(0, NUM_FOLDS, num_users)
