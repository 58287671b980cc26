"""Whether an answer is of the revision that it names, and whether that one was in service.

A revision's fingerprint is what it scores a fixed set of calls, asked for before anybody
is sent to it. Every answer of the load repeats one of these calls, so its scores must be
those of the revision that it names, up to rounding.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from swap_load import Answer

TOLERANCE = 1e-4  # of a score: a batch of another shape rounds otherwise
MIN_DIFFERENCE = 10 * TOLERANCE
KEPT = 64  # fingerprints; an older revision has left the server long ago
FAULTS = ("failed", "wrong_version", "stale", "mixed")

Fingerprint = NDArray[np.float64]  # (calls, items)


@dataclass(slots=True)
class _Span:
    """A time in which a revision may have been active: from asking for it to its end."""

    revision: int
    asked: float
    ended: float = math.inf


class Timeline:
    """When each revision may have answered, by what the operator asked and heard."""

    def __init__(self, active: int) -> None:
        self._spans = deque([_Span(active, -math.inf)], maxlen=1000)
        self._first = {active: -math.inf}

    def switched(self, revision: int, asked: float, heard: float) -> None:
        """Another one is active since some moment between ``asked`` and ``heard``."""
        self._spans[-1].ended = heard
        self._spans.append(_Span(revision, asked))
        self._first.setdefault(revision, asked)

    def was_active(self, revision: int, sent: float, received: float) -> bool:
        """At some moment of a call."""
        for span in reversed(self._spans):
            if span.ended < sent:
                return False
            if span.revision == revision and span.asked <= received:
                return True
        return False

    def was_before(self, revision: int, sent: float) -> bool:
        """Whether it may have been active at all when the call was sent, or earlier."""
        return self._first.get(revision, math.inf) < sent


class Fingerprints:
    """The scores of the revisions that were last made, and of the first one."""

    def __init__(self, revision: int, scores: Fingerprint) -> None:
        self._scores = {revision: scores}
        self._first = revision
        self.num_compared = 0
        self.smallest_difference = math.inf

    def add(self, revision: int, scores: Fingerprint) -> bool:
        """Keeps a fingerprint that can be told from those of the first and the last revision.

        Answers whether it can: two items of every call must differ by MIN_DIFFERENCE, so
        that an answer with items of both is seen to be neither's.
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
        """The largest of one answer's scores to a revision's own; infinite for an unknown one."""
        if revision not in self._scores:
            return math.inf
        return float(np.abs(self._scores[revision][call] - np.asarray(scores)).max())

    def has_scored(self, call: int, scores: Sequence[float]) -> bool:
        """Whether all scores are those of one revision, whichever it is."""
        return any(self.difference(n, call, scores) <= TOLERANCE for n in self._scores)


class Checker:
    """Counts the faults of the answers that it is shown, and remembers a few in words."""

    def __init__(self, timeline: Timeline, fingerprints: Fingerprints) -> None:
        self.timeline, self.fingerprints = timeline, fingerprints
        self.counts: dict[str, int] = dict.fromkeys(FAULTS, 0)
        self.num_answers = 0
        self.largest_noise = 0.0
        self.examples: list[str] = []

    def check(self, answer: Answer) -> tuple[str, ...]:
        """The answer's faults; none where it is as it should be."""
        faults = ("failed",) if answer.failure else self._faults(answer)
        self.num_answers += 1
        for fault in faults:
            self.counts[fault] += 1
        if faults and len(self.examples) < 10:
            self.examples.append(f"{', '.join(faults)}: {answer}")
        return faults

    def _faults(self, answer: Answer) -> tuple[str, ...]:
        found: list[str] = []
        if not self.timeline.was_active(answer.revision, answer.sent, answer.received):
            found.append("wrong_version")
            if self.timeline.was_before(answer.revision, answer.sent):
                found.append("stale")  # it had been active, and no longer was
        noise = self.fingerprints.difference(answer.revision, answer.call, answer.scores)
        if noise <= TOLERANCE:
            self.largest_noise = max(self.largest_noise, noise)
        elif not self.fingerprints.has_scored(answer.call, answer.scores):
            found.append("mixed")
        elif "stale" not in found:
            found.append("stale")
        return tuple(found)
