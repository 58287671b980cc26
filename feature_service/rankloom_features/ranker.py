"""The tree ranker: the base of the language model's score, and its fallback."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankloom_features.sessions import open_session


class RankerError(ValueError):
    """The tree ranker cannot be used; the message says why."""


class TreeRanker:
    """LightGBM's trees as one ONNX model. Thread-safe.

    Raises RankerError for bytes that are not a model from ``tree_export``.
    """

    def __init__(self, model: bytes) -> None:
        try:
            self._session = open_session(model)
            self.num_columns = int(self._session.get_inputs()[0].shape[1])
        except Exception as error:  # onnxruntime has a class for each cause
            raise RankerError("the tree ranker is not a valid ONNX model") from error

    def logits(self, tabular: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) liking logits of (n, num_columns) tabular features."""
        # Doubles keep LightGBM's exact splits, and sums do not drift.
        (found,) = self._session.run(None, {"features": tabular.astype(np.float64)})
        return np.asarray(found, np.float64)[:, 0]
