"""What a generated answer is worth: RecCoT's three rewards, as pure functions.

The formulas are those of the paper's code (arXiv 2506.21032), with three corrections: an answer is
compared with the rating of its own row, nothing is scaled within a batch, and the quality of the
words is their grounding up to a cap, where the paper counts characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from rankloom_training.data.reviews import HIGHEST, LOWEST
from rankloom_training.reccot.answer import ReviewAnswer, read_answer

LEAST = -1.6  # of the accuracy before its weight: what rating all 4 too high gets
ENOUGH_WORDS = 6  # grounded words beyond these earn nothing
MAX_WORDS = 40  # a longer text is worth less in proportion
ECHO_WORDS = 8  # so many words in the prompt's own order are an echo
CLASSES = tuple(range(int(LOWEST), int(HIGHEST) + 1))
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ClassWeights:
    """Rating → weight, 1 / √(share of the rating), 1 on average over the rows it was made of."""

    by_class: Mapping[int, float]

    @classmethod
    def of(cls, ratings: NDArray[np.float64]) -> ClassWeights:
        """``ratings``: (n,) of the training fold alone."""
        counts = np.bincount(_classes(ratings), minlength=CLASSES[-1] + 1)[1:]
        weights = 1.0 / np.sqrt(np.maximum(counts, 1))
        weights *= counts.sum() / (weights * counts).sum()
        return cls(dict(zip(CLASSES, weights.tolist(), strict=True)))

    @classmethod
    def equal(cls) -> ClassWeights:
        return cls(dict.fromkeys(CLASSES, 1.0))

    def of_rating(self, rating: float) -> float:
        return self.by_class[int(_classes(np.array([rating]))[0])]


@dataclass(frozen=True, slots=True)
class Rewards:
    """Of one answer. ``accuracy`` is weighted by the frequency of the row's rating."""

    format: float
    accuracy: float
    quality: float

    @property
    def total(self) -> float:
        return self.format + self.accuracy + self.quality


def rewards_of(raw: str, source: str, rating: float, weights: ClassWeights) -> Rewards:
    """Of what a generator wrote about a review.

    ``source``: the prompt's text about item and review. ``rating``: the row's own.
    """
    weight, read = weights.of_rating(rating), read_answer(raw)
    if read.answer is None:
        return Rewards(0.0, weight * LEAST, 0.0)
    return Rewards(
        0.0 if read.repaired else 1.0,
        weight * bounded_accuracy(read.answer.answer - rating),
        quality(read.answer.think, source),
    )


def accuracy(error: float) -> float:
    """0.8 exp(-e²) + 0.2 penalty; the penalty of too high a rating is steep at once.

    ``error``: e, the answer less the row's rating, from -4 to 4.
    """
    if error < 0:
        penalty = -(np.exp(-error) - 1.0)
    else:
        penalty = -8.0 * (1.0 - np.exp(-4.0 * error) / (1.0 + error))
    return float(0.8 * np.exp(-(error**2)) + 0.2 * penalty)


def bounded_accuracy(error: float) -> float:
    """``accuracy``, but at least LEAST, so that no answer is worse than one that cannot be read."""
    return max(accuracy(error), LEAST)


def quality(think: str, source: str) -> float:
    """From 0 to 1: how much of the text is grounded in the source without repeating it.

    min(grounded words, ENOUGH_WORDS) / ENOUGH_WORDS, times the share of grounded ones among its
    content words, times MAX_WORDS / words if it is longer, times the share that is no echo.
    """
    words, known = _words(think), _words(source)
    content = {word for word in words if len(word) > 2} - ENGLISH_STOP_WORDS
    if not content:
        return 0.0
    grounded = len(content & set(known))
    enough = min(grounded, ENOUGH_WORDS) / ENOUGH_WORDS
    brevity = min(1.0, MAX_WORDS / len(words))
    return enough * (grounded / len(content)) * brevity * (1.0 - echoed(words, known))


def echoed(words: Sequence[str], known: Sequence[str]) -> float:
    """Share of the words that stand in a run of ECHO_WORDS of the source, or are the source."""
    size = min(ECHO_WORDS, max(len(known), 1))
    runs = set(_runs(known, size))
    inside = np.zeros(len(words), dtype=np.bool_)
    for at, run in enumerate(_runs(words, size)):
        if run in runs:
            inside[at : at + size] = True
    return float(inside.mean()) if len(words) else 0.0


def answered(think: str, rating: float) -> str:
    """The JSON of an answer."""
    return ReviewAnswer(think=think, answer=rating).to_json()


def _runs(words: Sequence[str], size: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _classes(ratings: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.rint(ratings), LOWEST, HIGHEST).astype(np.int64)
