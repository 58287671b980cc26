"""Keeps validated experts in memory, so that each is read from the disk only once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from rankloom_adapters.expert import Expert

Key = tuple[str, str]


class ExpertCache:
    """A least-recently-used cache of validated experts, limited in bytes. Thread-safe.

    Staging reads an expert and compares it with the others of its bundle; loading it into a
    slot reads it again. Both find it here.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Expert] = OrderedDict()
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def get(self, name: str, digest: str, read: Callable[[], Expert]) -> Expert:
        """Returns the cached expert, or calls ``read`` and raises what that raises.

        ``digest``: of both files.
        """
        key = (name, digest)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        expert = read()
        with self._lock:
            self._keep(key, expert)
        return expert

    def put(self, digest: str, expert: Expert) -> None:
        """Keeps an expert that was read elsewhere; ``digest``: of both of its files."""
        with self._lock:
            self._keep((expert.name, digest), expert)

    def _keep(self, key: Key, expert: Expert) -> None:
        if key in self._kept or expert.num_bytes > self._max_bytes:
            return
        self._kept[key] = expert
        self._num_bytes += expert.num_bytes
        while self._num_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.num_bytes
