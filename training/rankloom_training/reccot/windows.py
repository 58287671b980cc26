"""Texts as windows of tokens: a text that is longer than a text encoder reads is read in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

MAX_WINDOWS = 8  # of one text; what follows is not read


@dataclass(frozen=True, slots=True, eq=False)
class TokenWindows:
    """``ids``, ``mask``: (windows, tokens) int64. ``owner``: (windows,) which text each is of.

    A text's vector is the mean of those of its windows.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    owner: NDArray[np.int64]


class WindowTokenizer:
    """Cuts texts into windows that overlap by a quarter. Immutable."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, padding: int) -> None:
        """``max_tokens``: of a window, with the tokenizer's own begin and end."""
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, stride=max_tokens // 4)
        self._padding = padding

    def windows(self, texts: Sequence[str]) -> TokenWindows:
        found: list[list[int]] = []
        owner: list[int] = []
        for number, encoding in enumerate(self._tokenizer.encode_batch(list(texts))):
            pieces = [encoding, *encoding.overflowing][:MAX_WINDOWS]
            found += [piece.ids for piece in pieces]
            owner += [number] * len(pieces)
        ids = np.full((len(found), max(map(len, found), default=1)), self._padding, np.int64)
        mask = np.zeros_like(ids)
        for row, own in enumerate(found):
            ids[row, : len(own)], mask[row, : len(own)] = own, 1
        return TokenWindows(ids, mask, np.array(owner, dtype=np.int64))


def mean_of_windows(
    vectors: NDArray[np.float32], owner: NDArray[np.int64], number: int
) -> NDArray[np.float32]:
    """(texts, dim) from the vectors of windows, (windows, dim)."""
    total = np.zeros((number, vectors.shape[1]), dtype=np.float32)
    np.add.at(total, owner, vectors)
    counts = np.bincount(owner, minlength=number).astype(np.float32)
    return np.asarray(total / np.maximum(counts, 1.0)[:, None], dtype=np.float32)
