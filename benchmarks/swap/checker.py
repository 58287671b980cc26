"""Checks that each answer comes from the revision that it names, and that this one was active.

A revision's fingerprint is its scores for a fixed set of calls, taken before it becomes active.
Every answer of the load repeats one of these calls, so its scores must be those of the revision
that it names, up to rounding.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.swap.callers import CallOutcome

FAULTS = ("failed", "wrong_version", "stale", "mixed")
TOLERANCE = 1e-4  # of a score: batches of other shapes round differently
MIN_DIFFERENCE = 10 * TOLERANCE
KEPT = 64  # fingerprints; the server retired older revisions long ago

Fingerprint = NDArray[np.float64]  # (calls, items)


@dataclass(slots=True)
class _ActiveSpan:
    """A time in which a revision may have been active.

    From sending the command that activates it to the answer of the next one.
    """

    revision: int
    asked: float
    ended: float = math.inf


class Timeline:
    """When each revision may have answered, by the times of the operator's commands."""

    def __init__(self, active: int) -> None:
        self._spans = deque([_ActiveSpan(active, -math.inf)], maxlen=1000)
        self._first = {active: -math.inf}

    def switched(self, revision: int, asked: float, answered: float) -> None:
        """Another revision became active between ``asked`` and ``answered``."""
        self._spans[-1].ended = answered
        self._spans.append(_ActiveSpan(revision, asked))
        self._first.setdefault(revision, asked)

    def was_active(self, revision: int, sent: float, received: float) -> bool:
        """Whether it may have been active at any moment of a call."""
        for span in reversed(self._spans):
            if span.ended < sent:
                return False
            if span.revision == revision and span.asked <= received:
                return True
        return False

    def was_before(self, revision: int, sent: float) -> bool:
        """Whether it may have been active when the call was sent, or earlier."""
        return self._first.get(revision, math.inf) < sent


class Fingerprints:
    """Scores of the latest revisions and of the first one."""

    def __init__(self, revision: int, scores: Fingerprint) -> None:
        self._scores = {revision: scores}
        self._first = revision
        self.num_compared = 0
        self.smallest_difference = math.inf

    def add(self, revision: int, scores: Fingerprint) -> bool:
        """Keeps a fingerprint that differs from those of the first and the last revision.

        Returns whether it does: in every call, two items must differ by MIN_DIFFERENCE, so that
        an answer with items of both revisions matches neither.
        """
        others = [self._scores[self._first], next(reversed(self._scores.values()))]
        by_call = np.array([np.sort(np.abs(scores - theirs))[:, -2] for theirs in others])
        if not by_call.min() >= MIN_DIFFERENCE:
            return False
        self.num_compared += by_call.size
        self.smallest_difference = min(self.smallest_difference, float(by_call.min()))
        self._scores[revision] = scores
        if len(self._scores) > KEPT:
            del self._scores[next(n for n in self._scores if n != self._first)]
        return True

    def difference(self, revision: int, call: int, scores: Sequence[float]) -> float:
        """Largest difference of an answer from a revision's scores; infinite if it is unknown."""
        if revision not in self._scores:
            return math.inf
        return float(np.abs(self._scores[revision][call] - np.asarray(scores)).max())

    def has_scored(self, call: int, scores: Sequence[float]) -> bool:
        """Whether all scores are those of one single revision."""
        return any(self.difference(n, call, scores) <= TOLERANCE for n in self._scores)


class AnswerChecker:
    """Counts the faults of answers and keeps a few examples."""

    def __init__(self, timeline: Timeline, fingerprints: Fingerprints) -> None:
        self.timeline, self.fingerprints = timeline, fingerprints
        self.counts: dict[str, int] = dict.fromkeys(FAULTS, 0)
        self.num_answers = 0
        self.largest_noise = 0.0
        self.examples: list[str] = []

    def check(self, answer: CallOutcome) -> tuple[str, ...]:
        """Counts and returns the answer's faults."""
        faults = ("failed",) if answer.failure else self._faults(answer)
        self.num_answers += 1
        for fault in faults:
            self.counts[fault] += 1
        if faults and len(self.examples) < 10:
            self.examples.append(f"{', '.join(faults)}: {answer}")
        return faults

    def _faults(self, answer: CallOutcome) -> tuple[str, ...]:
        found: list[str] = []
        if not self.timeline.was_active(answer.revision, answer.sent, answer.received):
            found.append("wrong_version")
            if self.timeline.was_before(answer.revision, answer.sent):
                found.append("stale")  # it was active earlier
        noise = self.fingerprints.difference(answer.revision, answer.call, answer.scores)
        if noise <= TOLERANCE:
            self.largest_noise = max(self.largest_noise, noise)
        elif not self.fingerprints.has_scored(answer.call, answer.scores):
            found.append("mixed")
        elif "stale" not in found:
            found.append("stale")
        return tuple(found)
