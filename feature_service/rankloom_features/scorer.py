"""Computes collaborative logits of candidates without the model, which runs once per user.

Every collaborative model scores an item by u · v_i + b_i (`models.base`), so that two tables
per item are enough.
"""

from __future__ import annotations

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rankloom_features.encoder import Encoder, EncoderError
from rankloom_features.events import History

TOLERANCE = 1e-4
_NOTHING = History.untimed(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))
_CHUNK = 4096
_CHECKED_USERS, _CHECKED_ITEMS, _CHECKED_EVENTS = 4, 64, 8


class Scorer:
    """Scores items for a user vector. ``vectors``: (items, dim), ``bias``: (items,) float32."""

    def __init__(self, vectors: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.vectors, self.bias = vectors, bias

    def logits(self, user: NDArray[np.float32], indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n,) logits for a (dim,) user vector and (n,) catalogue indices; NaN for index -1.

        Rounding does not depend on the other candidates.
        """
        found = (self.vectors[indices] * user).sum(axis=1) + self.bias[indices]
        return np.where(indices >= 0, found, np.float32(np.nan))


def scorer_from_bytes(encoder: Encoder, item_vectors: bytes, num_items: int) -> Scorer:
    """Builds the scorer from a model and its item vectors. Raises EncoderError.

    It compares both on random users, because nothing else shows item vectors of another model.
    """
    vectors = read_item_vectors(item_vectors)
    if vectors.shape != (num_items, encoder.dim):
        raise EncoderError("the item vectors do not fit this catalogue and feature model")
    every = [np.arange(at, min(at + _CHUNK, num_items)) for at in range(0, num_items, _CHUNK)]
    bias = np.concatenate([_by_model(encoder, _NOTHING, indices)[1] for indices in every])
    scorer = Scorer(vectors, bias)
    random = np.random.default_rng(0)
    for _ in range(_CHECKED_USERS):
        history = History.untimed(
            random.integers(0, num_items, _CHECKED_EVENTS), random.random(_CHECKED_EVENTS) < 0.5
        )
        indices = random.integers(0, num_items, _CHECKED_ITEMS)
        user, expected = _by_model(encoder, history, indices)
        worst = np.abs(scorer.logits(user, indices) - expected).max()
        if not worst <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise EncoderError("the item vectors belong to another feature model")
    return scorer


def _by_model(
    encoder: Encoder, history: History, indices: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    vectors, logits = encoder.encode_and_score([history], indices[None] + 1)
    return vectors[0], logits[0]


def read_item_vectors(data: bytes) -> NDArray[np.float32]:
    """(items, dim) float32, all finite. Raises EncoderError."""
    try:
        vectors = safetensors.numpy.load(data)["vectors"].astype(np.float32)
    except Exception as error:  # safetensors does not export its class
        raise EncoderError("the item vectors cannot be read") from error
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise EncoderError("the item vectors are not a finite matrix")
    return np.ascontiguousarray(vectors)
