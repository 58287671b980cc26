"""A circuit breaker: a service that keeps failing is called only once per cooldown."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_FAILURES = 3
COOLDOWN_S = 1.0


class Breaker:
    """Closed until MAX_FAILURES calls in a row failed; then half-open once a cooldown.

    A cancelled probe changes nothing: the next one may follow after the cooldown.
    Not thread-safe: one event loop owns it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_failures = 0
        self._next_probe = 0.0

    def allows(self) -> bool:
        """Whether to call now; while open, true for one probe per cooldown."""
        if self._num_failures < MAX_FAILURES:
            return True
        now = self._clock()
        if now < self._next_probe:
            return False
        self._next_probe = now + COOLDOWN_S
        return True

    def succeeded(self) -> None:
        self._num_failures = 0

    def failed(self) -> None:
        self._num_failures += 1
        self._next_probe = self._clock() + COOLDOWN_S
