"""How fast files are read beside requests, so that a large bundle does not crowd them out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """So many bytes a second, by whoever reads. Thread-safe."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not bytes_per_s > 0.0:
            raise ValueError(f"a limiter of {bytes_per_s} bytes a second is none: give more than 0")
        self._bytes_per_s, self._clock, self._sleep = bytes_per_s, clock, sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def wait(self, num_bytes: int) -> None:
        """Returns once bytes that have been read are paid for."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + num_bytes / self._bytes_per_s
            left_s = self._free_at - now
        self._sleep(left_s)
