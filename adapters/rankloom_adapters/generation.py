"""Generations and leases: a request keeps the bundle it began with to its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownGenerationError(LookupError):
    """No such generation is being served. ``number`` is the one asked for."""

    def __init__(self, number: int) -> None:
        super().__init__(f"generation {number} is not being served")
        self.number = number


@dataclass(frozen=True, slots=True)
class Lease(Generic[T]):
    """A request's hold on a generation and what it serves."""

    number: int
    value: T


class Generations(Generic[T]):
    """The generation in service, and how many requests hold it. Thread-safe.

    A published value is never changed; publishing another only moves new leases.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: Lease[T] | None = None
        self._num_leases: dict[int, int] = {}

    def publish(self, value: T) -> int:
        """Puts a value in service; answers its number, 1 for the first."""
        with self._lock:
            number = self._active.number + 1 if self._active else 1
            self._active = Lease(number, value)
            self._num_leases[number] = 0
            return number

    @contextmanager
    def lease(self, pinned: int | None = None) -> Iterator[Lease[T]]:
        """Holds the active generation; ``pinned`` must be that one.

        Raises UnknownGenerationError where it is not, or where nothing is published.
        """
        with self._lock:
            held = self._active
            if held is None or pinned not in (None, held.number):
                raise UnknownGenerationError(pinned or 0)
            self._num_leases[held.number] += 1
        try:
            yield held
        finally:
            with self._lock:
                self._num_leases[held.number] -= 1

    def num_leases(self, number: int) -> int:
        """How many requests hold a generation."""
        with self._lock:
            return self._num_leases.get(number, 0)
