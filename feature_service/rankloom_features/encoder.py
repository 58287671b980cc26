"""Runs the exported collaborative model with onnxruntime, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rankloom_features.events import History
from rankloom_features.histories import Histories
from rankloom_features.sessions import open_session

MAX_EVENTS = 50
_ROWS = 512  # histories of one run of the model


class EncoderError(ValueError):
    """The feature model, or its item vectors, cannot be used; the message says why."""


class Encoder:
    """Computes user vectors from events. Thread-safe.

    ``feature_version``: digest of the model's bytes; it identifies the latent space.
    """

    def __init__(self, model: bytes) -> None:
        self.feature_version = hashlib.sha256(model).hexdigest()
        self._no_candidates = np.zeros((_ROWS, 1), np.int64)  # of each history: padding
        try:
            self._session = open_session(model)
            vectors = self._session.get_outputs()[0]
            self.dim, self._only_vectors = int(vectors.shape[1]), [vectors.name]
        except Exception as error:  # onnxruntime has a class for each cause
            raise EncoderError("the feature model is not a valid ONNX model") from error

    def check_num_items(self, num_items: int) -> None:
        """Raises EncoderError if the model was trained on another number of items."""
        if not self._knows(num_items) or self._knows(num_items + 1):
            raise EncoderError(f"the feature model is not for a catalogue of {num_items} items")

    def _knows(self, item: int) -> bool:
        items, liked = np.zeros((2, 1, MAX_EVENTS), dtype=np.int64)
        quiet = onnxruntime.RunOptions()
        quiet.log_severity_level = 4  # an error is one of the two expected results
        feed = {"items": items, "liked": liked, "candidates": np.array([[item]])}
        try:
            self._session.run(None, feed, quiet)
        except Exception:  # onnxruntime has a class for each cause
            return False
        return True

    def encode(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """(n, dim) float32 user vectors; zero for an empty history."""
        return self.encode_all(Histories.of(histories))

    def encode_and_score(
        self, histories: Sequence[History], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """User vectors (n, dim), and logits (n, c) of candidates (n, c).

        ``candidates``: catalogue index + 1; 0 is padding and gives a logit of 0.
        """
        return self._run(*pad_events(histories), candidates)

    def encode_all(self, histories: Histories) -> NDArray[np.float32]:
        """(n, dim) float32 user vectors of any number of histories."""
        if len(histories) <= _ROWS:
            return self._vectors(histories)  # nothing to cut and to join
        starts = range(0, len(histories), _ROWS)
        parts = [histories.only(slice(at, at + _ROWS)) for at in starts]
        return np.concatenate([self._vectors(part) for part in parts])

    def _vectors(self, histories: Histories) -> NDArray[np.float32]:
        """(n, dim) user vectors by one run, which scores nothing."""
        items, liked = histories.newest(MAX_EVENTS)
        feed = {"items": items, "liked": liked, "candidates": self._no_candidates[: len(items)]}
        (vectors,) = self._session.run(self._only_vectors, feed)
        return np.asarray(vectors, np.float32)

    def _run(
        self, items: NDArray[np.int64], liked: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        feed = {"items": items, "liked": liked, "candidates": candidates}
        vectors, logits = self._session.run(None, feed)
        return np.asarray(vectors, np.float32), np.asarray(logits, np.float32)


def pad_events(histories: Sequence[History]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The last MAX_EVENTS events as (n, MAX_EVENTS) items and labels, padded on the left."""
    return Histories.of(histories).newest(MAX_EVENTS)
