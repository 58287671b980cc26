"""The tree ranker: the language model's starting point, and its stand-in when it fails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankloom_features.sessions import open_session


class RankerError(ValueError):
    """The bytes are no tree ranker."""


class TreeRanker:
    """LightGBM's trees as one ONNX model. Safe from several threads.

    Raises RankerError for bytes that ``tree_export`` cannot have made.
    """

    def __init__(self, model: bytes) -> None:
        try:
            self._session = open_session(model)
            self.num_columns = int(self._session.get_inputs()[0].shape[1])
        except Exception as error:  # onnxruntime raises classes of its own for each cause
            raise RankerError("the tree ranker is no ONNX model that can be run") from error

    def logits(self, tabular: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) liking logits of (n, num_columns) tabular features."""
        # Doubles: a split lies where LightGBM put it, and sums do not drift.
        (found,) = self._session.run(None, {"features": tabular.astype(np.float64)})
        return np.asarray(found, np.float64)[:, 0]
