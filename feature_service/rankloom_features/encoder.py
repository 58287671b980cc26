"""Runs the exported collaborative model with onnxruntime, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from rankloom_features.events import History
from rankloom_features.sessions import open_session

MAX_EVENTS = 50


class EncoderError(ValueError):
    """The feature model, or its item vectors, cannot be used; the message says why."""


class Encoder:
    """Computes user vectors from events. Thread-safe.

    ``feature_version``: digest of the model's bytes; it identifies the latent space.
    """

    def __init__(self, model: bytes) -> None:
        self.feature_version = hashlib.sha256(model).hexdigest()
        try:
            self._session = open_session(model)
            self.dim = int(self._session.get_outputs()[0].shape[1])
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
        return self.encode_and_score(histories, np.zeros((len(histories), 1), dtype=np.int64))[0]

    def encode_and_score(
        self, histories: Sequence[History], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """User vectors (n, dim), and logits (n, c) of candidates (n, c).

        ``candidates``: catalogue index + 1; 0 is padding and gives a logit of 0.
        """
        items, liked = pad_events(histories)
        feed = {"items": items, "liked": liked, "candidates": candidates}
        vectors, logits = self._session.run(None, feed)
        return np.asarray(vectors, np.float32), np.asarray(logits, np.float32)


def pad_events(histories: Sequence[History]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The last MAX_EVENTS events as (n, MAX_EVENTS) items and labels, padded on the left."""
    items = np.zeros((len(histories), MAX_EVENTS), dtype=np.int64)
    liked = np.zeros_like(items)
    for row, history in enumerate(histories):
        recent = history.index[-MAX_EVENTS:]
        if len(recent):
            items[row, -len(recent) :] = recent + 1
            liked[row, -len(recent) :] = history.liked[-MAX_EVENTS:]
    return items, liked
