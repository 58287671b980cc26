"""Small LightGBM boosters."""

from __future__ import annotations

import lightgbm
import numpy as np

COLUMNS = 4  # training has NaN only in the last one


def booster(seed: int, columns: int = COLUMNS, rounds: int = 10) -> lightgbm.Booster:
    """A booster of random rows whose label follows the first two columns."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(300, columns))
    features[random.random(300) < 0.2, -1] = np.nan
    label = features[:, 0] + features[:, 1] + 0.3 * random.normal(size=300) > 0
    options = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lightgbm.train(options, lightgbm.Dataset(features, label), rounds)
