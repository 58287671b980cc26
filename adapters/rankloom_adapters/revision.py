"""Revisions and leases: a request keeps the bundle it began with to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from rankloom_adapters.split import Arm, arm_of

T = TypeVar("T")


class UnknownRevisionError(LookupError):
    """No such revision is being served. ``number`` is the one asked for."""

    def __init__(self, number: int) -> None:
        super().__init__(f"revision {number} is not being served")
        self.number = number


class RevisionRetiredError(LookupError):
    """The revision was let go before the request had ended."""

    def __init__(self, number: int) -> None:
        super().__init__(f"revision {number} was retired before the answer was whole")


class RevisionInUseError(ValueError):
    """Requests are still being sent to the revision."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which revision answers whom. ``canary``: 0 for none; ``salt`` names it."""

    active: int
    canary: int = 0
    percent: int = 0
    salt: str = ""

    def revision_of(self, user: str | None) -> int:
        """Always the same one for a user, while the traffic is; without one, the active one."""
        if not self.canary or user is None:
            return self.active
        if arm_of(user, self.salt, self.percent) is Arm.CANARY:
            return self.canary
        return self.active

    @property
    def revisions(self) -> frozenset[int]:
        """All that answer somebody."""
        return frozenset({self.active, self.canary} - {0})


@dataclass(slots=True, eq=False)
class Lease(Generic[T]):
    """A request's hold on a revision and what it serves."""

    number: int
    value: T
    is_revoked: bool = False

    def check(self) -> None:
        """Raises RevisionRetiredError where the holder has been told to end."""
        if self.is_revoked:
            raise RevisionRetiredError(self.number)


@dataclass(slots=True)
class _Held(Generic[T]):
    """A loaded revision; ``release`` is set once it takes no new requests."""

    lease: Lease[T]
    num_leases: int = 0
    release: Callable[[T], object] | None = None


class Revisions(Generic[T]):
    """The loaded revisions, whom they answer, and how many requests hold each. Thread-safe.

    A value is never changed. Where traffic goes is one immutable mapping, put in place of
    the last one: a request sees the one or the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, _Held[T]] = {}
        self._traffic = Traffic(0)

    def add(self, number: int, value: T) -> None:
        """Makes a revision one that can be held; nobody is sent to it yet."""
        with self._lock:
            if number in self._held:
                raise ValueError(f"revision {number} is loaded already")
            self._held[number] = _Held(Lease(number, value))

    def direct(self, traffic: Traffic) -> None:
        """Sends new requests there. Raises UnknownRevisionError; nothing is changed then."""
        with self._lock:
            for number in traffic.revisions:
                self._loaded(number)
            self._traffic = traffic

    @property
    def traffic(self) -> Traffic:
        """Where new requests are sent now."""
        return self._traffic

    @contextmanager
    def lease(self, pinned: int | None = None, user: str | None = None) -> Iterator[Lease[T]]:
        """Holds the user's revision, or the pinned one, to the end of the block.

        Raises UnknownRevisionError where it is not loaded, or where nothing answers yet.
        """
        with self._lock:
            number = self._traffic.revision_of(user) if pinned is None else pinned
            held = self._loaded(number)
            held.num_leases += 1
        try:
            yield held.lease
        finally:
            self._give_back(number, held)

    def retire(self, number: int, release: Callable[[T], object]) -> None:
        """Takes no new requests for a revision; ``release`` gets its value once it is free.

        That may be now, or on the thread that gives the last lease back. Raises
        UnknownRevisionError, or RevisionInUseError where traffic goes there.
        """
        with self._lock:
            held = self._loaded(number)
            if number in self._traffic.revisions:
                raise RevisionInUseError(f"revision {number} answers requests")
            held.release = release
            free = not held.num_leases
            if free:
                del self._held[number]
        if free:
            release(held.lease.value)

    def revoke(self, number: int) -> None:
        """Tells those that still hold a retired revision to end; it is theirs until they do."""
        with self._lock:
            held = self._held.get(number)
            if held is not None and held.release is not None:
                held.lease.is_revoked = True

    def num_leases(self, number: int) -> int:
        """How many requests hold a revision; 0 for one that is gone."""
        with self._lock:
            held = self._held.get(number)
            return held.num_leases if held else 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """The revisions in memory, those that wait for their last lease among them."""
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
            raise UnknownRevisionError(number)
        return held

    def _give_back(self, number: int, held: _Held[T]) -> None:
        with self._lock:
            held.num_leases -= 1
            free = held.release is not None and not held.num_leases
            if free:
                del self._held[number]
        if free and held.release is not None:
            held.release(held.lease.value)
