"""The tree ranker: the language model's starting point, and its stand-in when it fails."""

from __future__ import annotations

from collections.abc import Sequence

import lightgbm
import numpy as np
from numpy.typing import NDArray


class RankerError(ValueError):
    """The bytes are no LightGBM model."""


class TreeRanker:
    """The mean of several LightGBM boosters' raw scores. Safe from several threads.

    Raises RankerError for bytes that are no LightGBM model, and where there are none.
    """

    def __init__(self, models: Sequence[bytes]) -> None:
        if not models:
            raise RankerError("the tree ranker has no LightGBM model")
        self._boosters = [_booster(model) for model in models]

    def logits(self, tabular: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) liking logits of (n, columns) tabular features."""
        if not len(tabular):
            return np.zeros(0)
        total = np.zeros(len(tabular))
        for booster in self._boosters:
            total += np.asarray(booster.predict(tabular, raw_score=True, num_threads=1))
        return total / len(self._boosters)


def _booster(model: bytes) -> lightgbm.Booster:
    # LightGBM ends the process on a text that is cut short, so its ends are checked here.
    _, trees_end, rest = model.partition(b"\nend of trees\n")
    if not trees_end or (b"\nparameters:\n" in rest and b"\nend of parameters\n" not in rest):
        raise RankerError("the tree ranker is no whole LightGBM model")
    try:
        return lightgbm.Booster(model_str=model.decode())
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
        raise RankerError("the tree ranker is no LightGBM model") from error
