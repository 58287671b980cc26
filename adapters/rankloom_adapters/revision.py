"""Revisions and leases: a request keeps the revision that it started with to its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from rankloom_adapters.split import Arm, arm_of

T = TypeVar("T")


class UnknownRevisionError(LookupError):
    """The revision ``number`` is not being served."""

    def __init__(self, number: int) -> None:
        super().__init__(f"revision {number} is not being served")
        self.number = number


class OtherBundleError(UnknownRevisionError):
    """The revision ``number`` of this server is another bundle than the pinned one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.args = (
            f"revision {number} of this server is another bundle than the pinned one; rank without "
            "a pin, or ask the server that answered",
        )


class NotYetServedError(UnknownRevisionError):
    """The revision ``number`` is loaded, but no request was ever sent to it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.args = (
            f"revision {number} has served no request yet, so it cannot be pinned; rank without a "
            "pin, or start a shadow of it",
        )


class RevisionRetiredError(LookupError):
    """The revision was retired before the request ended."""

    def __init__(self, number: int) -> None:
        super().__init__(f"revision {number} was retired before the request ended")


class RevisionInUseError(ValueError):
    """The revision still gets new requests."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which revision serves which users. ``canary``: 0 for none; ``salt`` names it.

    ``pinnable``: the other revisions that answer a request which names them.
    """

    active: int
    canary: int = 0
    percent: int = 0
    salt: str = ""
    pinnable: frozenset[int] = frozenset()

    def revision_of(self, user: str | None) -> int:
        """Stable per user as long as the traffic does not change; the active one without a user."""
        if not self.canary or user is None:
            return self.active
        if arm_of(user, self.salt, self.percent) is Arm.CANARY:
            return self.canary
        return self.active

    @property
    def revisions(self) -> frozenset[int]:
        """The active revision and the canary."""
        return frozenset({self.active, self.canary} - {0})


@dataclass(slots=True, eq=False)
class Lease(Generic[T]):
    """Keeps a revision in memory for a request. ``value``: what the revision serves with."""

    number: int
    value: T
    is_revoked: bool = False

    def check(self) -> None:
        """Raises RevisionRetiredError if the request is asked to end."""
        if self.is_revoked:
            raise RevisionRetiredError(self.number)


@dataclass(slots=True)
class _LoadedRevision(Generic[T]):
    """A loaded revision; ``release`` is set once it is retired."""

    lease: Lease[T]
    num_leases: int = 0
    release: Callable[[T], object] | None = None


class Revisions(Generic[T]):
    """The loaded revisions, their leases, and where new requests go. Thread-safe.

    Values never change. The traffic is one immutable object that is replaced as a whole: a
    request sees either the old or the new one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[int, _LoadedRevision[T]] = {}
        self._traffic = Traffic(0)

    def add(self, number: int, value: T) -> None:
        """Makes a revision available for leases; traffic does not go there yet."""
        with self._lock:
            if number in self._entries:
                raise ValueError(f"revision {number} is loaded already")
            self._entries[number] = _LoadedRevision(Lease(number, value))

    def direct(self, traffic: Traffic) -> None:
        """Sends new requests there. Raises UnknownRevisionError, and changes nothing then."""
        with self._lock:
            for number in traffic.revisions:
                self._leasable(number)
            self._traffic = traffic

    @property
    def traffic(self) -> Traffic:
        """Where new requests go now."""
        return self._traffic

    @contextmanager
    def lease(self, pinned: int | None = None, user: str | None = None) -> Iterator[Lease[T]]:
        """Leases the user's revision, or the pinned one, to the end of the block.

        Raises UnknownRevisionError where it is not loaded, or before the first `direct`, and
        NotYetServedError where it cannot be pinned.
        """
        with self._lock:
            number = self._traffic.revision_of(user) if pinned is None else pinned
            entry = self._leasable(number)
            if number not in self._traffic.revisions | self._traffic.pinnable:
                raise NotYetServedError(number)
            entry.num_leases += 1
        try:
            yield entry.lease
        finally:
            self._return(number, entry)

    def retire(self, number: int, release: Callable[[T], object]) -> None:
        """Ends new leases of a revision; ``release`` gets its value after the last lease.

        It is called now, or on the thread that returns the last lease. Raises
        UnknownRevisionError, or RevisionInUseError where traffic goes there.
        """
        with self._lock:
            entry = self._leasable(number)
            if number in self._traffic.revisions:
                raise RevisionInUseError(
                    f"revision {number} serves requests; direct traffic to another one first"
                )
            entry.release = release
            free = not entry.num_leases
            if free:
                del self._entries[number]
        if free:
            release(entry.lease.value)

    def revoke(self, number: int) -> None:
        """Asks the requests that still lease a retired revision to end; it stays until they do."""
        with self._lock:
            entry = self._entries.get(number)
            if entry is not None and entry.release is not None:
                entry.lease.is_revoked = True

    def num_leases(self, number: int) -> int:
        """The number of requests that lease a revision; 0 for one that is gone."""
        with self._lock:
            entry = self._entries.get(number)
            return entry.num_leases if entry else 0

    @property
    def numbers(self) -> tuple[int, ...]:
        """The revisions in memory, including those that wait for their last lease."""
        with self._lock:
            return tuple(sorted(self._entries))

    @property
    def values(self) -> tuple[T, ...]:
        """What all revisions in memory serve with; nobody keeps them loaded for the caller."""
        with self._lock:
            return tuple(entry.lease.value for entry in self._entries.values())

    @property
    def serving(self) -> tuple[int, ...]:
        """The revisions that can be leased."""
        with self._lock:
            return tuple(sorted(n for n, entry in self._entries.items() if entry.release is None))

    def _leasable(self, number: int) -> _LoadedRevision[T]:
        entry = self._entries.get(number)
        if entry is None or entry.release is not None:
            raise UnknownRevisionError(number)
        return entry

    def _return(self, number: int, entry: _LoadedRevision[T]) -> None:
        with self._lock:
            entry.num_leases -= 1
            free = entry.release is not None and not entry.num_leases
            if free:
                del self._entries[number]
        if free and entry.release is not None:
            entry.release(entry.lease.value)
