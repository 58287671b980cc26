"""The tree ranker: the language model's starting point, and its stand-in when it fails."""

from __future__ import annotations

from collections.abc import Sequence

import lightgbm
import numpy as np
from numpy.typing import NDArray


class RankerError(ValueError):
    """The bytes are no LightGBM model."""


class TreeRanker:
    """The mean of several LightGBM boosters' raw scores. Safe from several threads."""

    def __init__(self, models: Sequence[bytes]) -> None:
        try:
            self._boosters = [lightgbm.Booster(model_str=model.decode()) for model in models]
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise RankerError("the tree ranker is no LightGBM model") from error

    def logits(self, tabular: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) liking logits of (n, columns) tabular features."""
        if not len(tabular):
            return np.zeros(0)
        total = np.zeros(len(tabular))
        for booster in self._boosters:
            total += np.asarray(booster.predict(tabular, raw_score=True, num_threads=1))
        return total / len(self._boosters)
