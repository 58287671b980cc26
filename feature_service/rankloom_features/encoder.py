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
        return self._run(*pad_events(histories), candidates)

    def encode_all(self, histories: Histories) -> NDArray[np.float32]:
        """(n, dim) float32 user vectors of any number of histories."""
        vectors = np.zeros((len(histories), self.dim), np.float32)
        none = np.zeros((_ROWS, 1), np.int64)
        for at in range(0, len(histories), _ROWS):
            part = histories.only(slice(at, at + _ROWS))
            vectors[at : at + _ROWS], _ = self._run(*part.newest(MAX_EVENTS), none[: len(part)])
        return vectors

    def _run(
        self, items: NDArray[np.int64], liked: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        feed = {"items": items, "liked": liked, "candidates": candidates}
        vectors, logits = self._session.run(None, feed)
        return np.asarray(vectors, np.float32), np.asarray(logits, np.float32)


def pad_events(histories: Sequence[History]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The last MAX_EVENTS events as (n, MAX_EVENTS) items and labels, padded on the left."""
    return Histories.of(histories).newest(MAX_EVENTS)
