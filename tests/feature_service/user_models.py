"""A small user model with random numbers."""

from __future__ import annotations

import numpy as np

from rankloom_features.user_model import LevelPrior, UserModel

PRIOR = LevelPrior(level=0.02, session=0.01, session_s=7_200.0, overall=0.55)


def random_user_model(num_items: int, rank: int = 4, seed: int = 0) -> UserModel:
    random = np.random.default_rng(seed)
    factors = random.normal(scale=0.1, size=(num_items, rank)).astype(np.float32)
    means = random.uniform(0.2, 0.8, num_items).astype(np.float32)
    noise = random.uniform(0.1, 0.2, num_items).astype(np.float32)
    return UserModel(factors, means, noise, PRIOR)
