"""Collaborative logits of candidates without a run of the model: it is needed once for a user.

Every collaborative model scores an item by u · v_i + b_i (`models.base`), so what its ONNX
file knows of items is two tables.
"""

from __future__ import annotations

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rankloom_features.encoder import Encoder, EncoderError
from rankloom_features.events import History

TOLERANCE = 1e-4
_NOTHING = History(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))
_CHUNK = 4096
_CHECKED_USERS, _CHECKED_ITEMS, _CHECKED_EVENTS = 4, 64, 8


class Scorer:
    """Scores items for users' vectors. ``vectors``: (items, dim), ``bias``: (items,) float32."""

    def __init__(self, vectors: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.vectors, self._bias = vectors, bias

    def logits(self, user: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n,) of a (dim,) vector and (n,) catalogue places; NaN for a negative place.

        Each is rounded as it would be alone.
        """
        found = (self.vectors[places] * user).sum(axis=1) + self._bias[places]
        return np.where(places >= 0, found, np.float32(np.nan))


def scorer_from_bytes(encoder: Encoder, item_vectors: bytes, num_items: int) -> Scorer:
    """The scorer of a model and its items' vectors. Raises EncoderError.

    Both are compared on random users: item vectors of another model would go unnoticed.
    """
    vectors = read_item_vectors(item_vectors)
    if vectors.shape != (num_items, encoder.dim):
        raise EncoderError("the item vectors are not of this catalogue and feature model")
    every = [np.arange(at, min(at + _CHUNK, num_items)) for at in range(0, num_items, _CHUNK)]
    bias = np.concatenate([_by_model(encoder, _NOTHING, places)[1] for places in every])
    scorer = Scorer(vectors, bias)
    random = np.random.default_rng(0)
    for _ in range(_CHECKED_USERS):
        history = History(
            random.integers(0, num_items, _CHECKED_EVENTS), random.random(_CHECKED_EVENTS) < 0.5
        )
        places = random.integers(0, num_items, _CHECKED_ITEMS)
        user, expected = _by_model(encoder, history, places)
        worst = np.abs(scorer.logits(user, places) - expected).max()
        if not worst <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise EncoderError("the item vectors are not the feature model's")
    return scorer


def _by_model(
    encoder: Encoder, history: History, places: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    vectors, logits = encoder.encode_and_score([history], places[None] + 1)
    return vectors[0], logits[0]


def read_item_vectors(data: bytes) -> NDArray[np.float32]:
    """(items, dim) float32, all finite. Raises EncoderError."""
    try:
        vectors = safetensors.numpy.load(data)["vectors"].astype(np.float32)
    except Exception as error:  # safetensors' own class is not exported
        raise EncoderError("the item vectors cannot be read") from error
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise EncoderError("the item vectors are not a finite matrix")
    return np.ascontiguousarray(vectors)
