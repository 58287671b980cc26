"""Limits the speed of reading files, so that loading a bundle does not slow down requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """Limits all readers together to a number of bytes a second. Thread-safe."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not bytes_per_s > 0.0:
            raise ValueError(f"invalid rate: {bytes_per_s} bytes/s; give a number above 0")
        self._bytes_per_s, self._clock, self._sleep = bytes_per_s, clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def wait(self, num_bytes: int) -> None:
        """Sleeps until these bytes, which were read already, fit the rate."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + num_bytes / self._bytes_per_s
            left_s = self._free_at - now
        self._sleep(left_s)
