"""Generations and leases: a request keeps the bundle it began with to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from rankloom_adapters.rollout.split import Arm, arm_of

T = TypeVar("T")


class UnknownGenerationError(LookupError):
    """No such generation is being served. ``number`` is the one asked for."""

    def __init__(self, number: int) -> None:
        super().__init__(f"generation {number} is not being served")
        self.number = number


class GenerationRetiredError(LookupError):
    """The generation was let go before the request had ended."""

    def __init__(self, number: int) -> None:
        super().__init__(f"generation {number} was retired before the answer was whole")


class GenerationInUseError(ValueError):
    """Requests are still being sent to the generation."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which generation answers whom. ``canary``: 0 for none; ``salt`` names it."""

    active: int
    canary: int = 0
    percent: int = 0
    salt: str = ""

    def generation_of(self, user: str | None) -> int:
        """Always the same one for a user, while the traffic is; without one, the active one."""
        if not self.canary or user is None:
            return self.active
        if arm_of(user, self.salt, self.percent) is Arm.CANARY:
            return self.canary
        return self.active

    @property
    def generations(self) -> frozenset[int]:
        """All that answer somebody."""
        return frozenset({self.active, self.canary} - {0})


@dataclass(slots=True, eq=False)
class Lease(Generic[T]):
    """A request's hold on a generation and what it serves."""

    number: int
    value: T
    is_revoked: bool = False

    def check(self) -> None:
        """Raises GenerationRetiredError where the holder has been told to end."""
        if self.is_revoked:
            raise GenerationRetiredError(self.number)


@dataclass(slots=True)
class _Held(Generic[T]):
    """A loaded generation; ``release`` is set once it takes no new requests."""

    lease: Lease[T]
    num_leases: int = 0
    release: Callable[[T], object] | None = None


class Generations(Generic[T]):
    """The loaded generations, whom they answer, and how many requests hold each. Thread-safe.

    A value is never changed. Where traffic goes is one immutable mapping, put in place of
    the last one: a request sees the one or the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, _Held[T]] = {}
        self._traffic = Traffic(0)

    def add(self, number: int, value: T) -> None:
        """Makes a generation one that can be held; nobody is sent to it yet."""
        with self._lock:
            if number in self._held:
                raise ValueError(f"generation {number} is loaded already")
            self._held[number] = _Held(Lease(number, value))

    def direct(self, traffic: Traffic) -> None:
        """Sends new requests there. Raises UnknownGenerationError; nothing is changed then."""
        with self._lock:
            for number in traffic.generations:
                self._loaded(number)
            self._traffic = traffic

    @property
    def traffic(self) -> Traffic:
        """Where new requests are sent now."""
        return self._traffic

    @contextmanager
    def lease(self, pinned: int | None = None, user: str | None = None) -> Iterator[Lease[T]]:
        """Holds the user's generation, or the pinned one, to the end of the block.

        Raises UnknownGenerationError where it is not loaded, or where nothing answers yet.
        """
        with self._lock:
            number = self._traffic.generation_of(user) if pinned is None else pinned
            held = self._loaded(number)
            held.num_leases += 1
        try:
            yield held.lease
        finally:
            self._give_back(number, held)

    def retire(self, number: int, release: Callable[[T], object]) -> None:
        """Takes no new requests for a generation; ``release`` gets its value once it is free.

        That may be now, or on the thread that gives the last lease back. Raises
        UnknownGenerationError, or GenerationInUseError where traffic goes there.
        """
        with self._lock:
            held = self._loaded(number)
            if number in self._traffic.generations:
                raise GenerationInUseError(f"generation {number} answers requests")
            held.release = release
            free = not held.num_leases
            if free:
                del self._held[number]
        if free:
            release(held.lease.value)

    def revoke(self, number: int) -> None:
        """Tells those that still hold a retired generation to end; it is theirs until they do."""
        with self._lock:
            held = self._held.get(number)
            if held is not None and held.release is not None:
                held.lease.is_revoked = True

    def num_leases(self, number: int) -> int:
        """How many requests hold a generation; 0 for one that is gone."""
        with self._lock:
            held = self._held.get(number)
            return held.num_leases if held else 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """The generations in memory, those that wait for their last lease among them."""
        with self._lock:
            return tuple(sorted(self._held))

    @property
    def serving(self) -> tuple[int, ...]:
        """Those among them that still take requests."""
        with self._lock:
            return tuple(sorted(n for n, held in self._held.items() if held.release is None))

    def _loaded(self, number: int) -> _Held[T]:
        held = self._held.get(number)
        if held is None or held.release is not None:
            raise UnknownGenerationError(number)
        return held

    def _give_back(self, number: int, held: _Held[T]) -> None:
        with self._lock:
            held.num_leases -= 1
            free = held.release is not None and not held.num_leases
            if free:
                del self._held[number]
        if free and held.release is not None:
            held.release(held.lease.value)
