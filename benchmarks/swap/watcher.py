"""Takes the answers of the load as they come, checks each one, and times those of a phase."""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.common.rollout_operator import OperatorError
from benchmarks.swap.callers import Callers, CallOutcome
from benchmarks.swap.checker import AnswerChecker

PATIENCE_S = 60.0


@dataclass(slots=True)
class SwapPhase:
    """All rounds of one kind. ``latencies``: seconds of calls that lie within one round."""

    latencies: array[float] = field(default_factory=lambda: array("d"))
    seconds: float = 0.0
    longest_gap_s: float = 0.0


class AnswerWatcher:
    """Answers so far. Take them between changes, while the timeline is up to date."""

    def __init__(self, load: Callers, checker: AnswerChecker) -> None:
        self.checker = checker
        self._num_of: Counter[int] = Counter()
        self._load, self._phase = load, SwapPhase()
        self._begun = self._last = math.inf

    @contextmanager
    def during(self, phase: SwapPhase) -> Iterator[None]:
        """Calls that begin and end in the block belong to the phase."""
        self.take()
        self._phase, self._begun = phase, time.monotonic()
        self._last = self._begun
        yield
        self.take()
        phase.seconds += time.monotonic() - self._begun
        self._phase, self._begun = SwapPhase(), math.inf

    def take(self, timeout_s: float = 0.0) -> None:
        """Checks new answers; waits at most ``timeout_s`` for the first."""
        for answer in self._load.take(timeout_s):
            self._num_of[answer.revision] += 1
            self.checker.check(answer)
            self._time(answer)

    def watch(self, seconds: float) -> None:
        """Checks the answers of that time."""
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0.0:
            self.take(left_s)

    def await_answers(self, revision: int, num: int) -> None:
        """Returns after that many answers of a revision. Raises OperatorError."""
        end = time.monotonic() + PATIENCE_S
        while self._num_of[revision] < num:
            if time.monotonic() > end:
                raise OperatorError(
                    f"revision {revision} is active but gave fewer than {num} answers "
                    f"in {PATIENCE_S:g} s"
                )
            self.take(0.1)

    def _time(self, answer: CallOutcome) -> None:
        phase = self._phase
        if answer.received < self._begun:
            return
        phase.longest_gap_s = max(phase.longest_gap_s, answer.received - self._last)
        self._last = answer.received
        if answer.sent >= self._begun and not answer.failure:
            phase.latencies.append(answer.received - answer.sent)
