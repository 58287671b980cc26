"""A rationale from the words of the review: which of them speak for the item, and which against.

A ridge regression of ratings on words and pairs of words says what each is worth. It needs no
language model, and it is what a language model is taught to write before it is rewarded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import Ridge

from rankloom_features.catalogue import Item
from rankloom_training.data import DataError
from rankloom_training.data.reviews import HIGHEST, LOWEST
from rankloom_training.reccot.answer import ReviewAnswer

MAX_TERMS = 3  # of each side
LEAST_WORTH = 0.05  # stars; weaker terms are not named
MAX_FEATURES = 50_000


class TermEvidence:
    """What words of reviews are worth in stars. Immutable."""

    def __init__(self, texts: Sequence[str], ratings: NDArray[np.float64]) -> None:
        """Fits to reviews and their ratings. Raises DataError if they share no word."""
        try:
            self._words = TfidfVectorizer(
                ngram_range=(1, 2), max_features=MAX_FEATURES, sublinear_tf=True
            )
            self._ridge = Ridge().fit(self._words.fit_transform(texts), ratings)
        except ValueError as error:
            raise DataError("the reviews have no words of two letters; use others") from error
        self._terms: NDArray[np.object_] = self._words.get_feature_names_out()

    def ratings(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n,) what the words alone say, from LOWEST to HIGHEST."""
        found = self._ridge.predict(self._words.transform(texts))
        return np.clip(np.asarray(found, np.float64), LOWEST, HIGHEST)

    def thinks(self, items: Sequence[Item], texts: Sequence[str]) -> Iterator[str]:
        """The item's labels, and the words that weigh most on each side."""
        found: Any = self._words.transform(texts)
        worth = found.multiply(self._ridge.coef_).tocsr()
        for item, (start, end) in zip(items, pairwise(worth.indptr.tolist()), strict=True):
            names = self._terms[worth.indices[start:end]].tolist()
            yield _think(item, list(zip(worth.data[start:end].tolist(), names, strict=True)))

    def answers(
        self, items: Sequence[Item], texts: Sequence[str], ratings: NDArray[np.float64]
    ) -> Iterator[ReviewAnswer]:
        """``ratings``: (n,) what each answer is to say, rounded to whole stars."""
        for think, rating in zip(self.thinks(items, texts), np.rint(ratings), strict=True):
            yield ReviewAnswer(think=think, answer=float(rating))


def _think(item: Item, terms: Sequence[tuple[float, str]]) -> str:
    parts = [", ".join(item.attributes)]
    for label, sign in (("For it", 1.0), ("Against it", -1.0)):
        if chosen := _strongest([(sign * worth, term) for worth, term in terms]):
            parts.append(f"{label}: {', '.join(chosen)}")
    return ". ".join(filter(None, parts)) + "." if any(parts) else "Nothing speaks clearly."


def _strongest(terms: Sequence[tuple[float, str]]) -> list[str]:
    """Terms of positive worth, the strongest first; none shares a word with a stronger one."""
    chosen: list[str] = []
    seen: set[str] = set()
    for worth, term in sorted(terms, key=lambda each: (-each[0], each[1])):
        words = set(term.split())
        if worth < LEAST_WORTH or len(chosen) == MAX_TERMS:
            break
        if words - ENGLISH_STOP_WORDS and not words & seen:
            chosen.append(term)
            seen |= words
    return chosen
