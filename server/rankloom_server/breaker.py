"""A circuit breaker: a service that keeps failing is not called until it has answered a probe."""

from __future__ import annotations

MAX_FAILURES = 3


class Breaker:
    """Opens when MAX_FAILURES calls in a row failed, and closes with the next success.

    Not thread-safe: one event loop owns it.
    """

    def __init__(self) -> None:
        self._num_failures = 0

    @property
    def is_open(self) -> bool:
        """Whether the service is left alone."""
        return self._num_failures >= MAX_FAILURES

    def succeeded(self) -> None:
        self._num_failures = 0

    def failed(self) -> bool:
        """Returns whether this failure has opened it."""
        self._num_failures += 1
        return self._num_failures == MAX_FAILURES
