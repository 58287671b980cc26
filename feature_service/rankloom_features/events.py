"""The event log: the events of each user, in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue

MIN_TIME_S, MAX_TIME_S = -62_135_596_800, 253_402_300_799  # the years 1 to 9999


class EventLogError(ValueError):
    """The event log is invalid; the message names the line."""


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction. ``time`` is in seconds since 1970 UTC, None where unknown."""

    item_id: str
    liked: bool
    time: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One user's events as arrays, oldest first; only items in the catalogue.

    ``index``: (n,) int64 catalogue indices. ``liked``: (n,) bool. ``time``: (n,) float64 seconds
    since 1970 UTC, NaN where unknown.
    """

    index: NDArray[np.int64]
    liked: NDArray[np.bool_]
    time: NDArray[np.float64]

    @classmethod
    def untimed(cls, index: NDArray[np.int64], liked: NDArray[np.bool_]) -> History:
        """Events whose times nobody knows."""
        return cls(index, liked, np.full(len(index), np.nan))

    def __len__(self) -> int:
        return len(self.index)


def known_events(events: Sequence[Event], catalogue: Catalogue) -> tuple[Event, ...]:
    """The events with items in the catalogue, in order."""
    return tuple(event for event in events if catalogue.index(event.item_id) >= 0)


def history_of(events: Sequence[Event], catalogue: Catalogue) -> History:
    """The events as arrays; every item must be in the catalogue."""
    index = np.array([catalogue.index(event.item_id) for event in events], dtype=np.int64)
    liked = np.array([event.liked for event in events], dtype=np.bool_)
    # As float64, None becomes NaN.
    return History(index, liked, np.array([event.time for event in events], dtype=np.float64))


def without_each(events: Sequence[Event], newest: int) -> tuple[tuple[Event, ...], ...]:
    """The events without one of the last ``newest``, in the order of those."""
    first = max(len(events) - newest, 0)
    return tuple((*events[:at], *events[at + 1 :]) for at in range(first, len(events)))


class EventLog:
    """A snapshot of every user's events, oldest first. Immutable."""

    def __init__(self, events: Mapping[str, Sequence[Event]]) -> None:
        self._events = {user: tuple(rows) for user, rows in events.items()}
        self.position = sum(len(rows) for rows in self._events.values())

    @property
    def users(self) -> tuple[str, ...]:
        """The users with events, in the order of the log."""
        return tuple(self._events)

    def events_of(self, user_id: str) -> tuple[Event, ...]:
        """The user's events, oldest first."""
        return self._events.get(user_id, ())

    def to_bytes(self) -> bytes:
        """JSON lines, one user per line."""
        lines = [
            json.dumps([user, [[e.item_id, int(e.liked), e.time] for e in rows]])
            for user, rows in self._events.items()
        ]
        return "".join(line + "\n" for line in lines).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> EventLog:
        """Raises EventLogError, which names the line."""
        events: dict[str, tuple[Event, ...]] = {}
        for number, line in enumerate(data.splitlines(), 1):
            user, rows = _user_of(line, number)
            if user in events:
                raise EventLogError(f"event log line {number} repeats a user; use one line")
            events[user] = rows
        return cls(events)


def _user_of(line: bytes, number: int) -> tuple[str, tuple[Event, ...]]:
    try:
        user, rows = json.loads(line)
        if not isinstance(user, str):
            raise TypeError("a user id must be text")
        return user, tuple(_event(item, liked, time) for item, liked, time in rows)
    except (ValueError, TypeError, RecursionError) as error:
        raise EventLogError(f"event log line {number} is not a valid user") from error


def _event(item: object, liked: object, time: object) -> Event:
    if not isinstance(item, str) or liked not in (0, 1):
        raise TypeError("an event needs an item id, 0 or 1, and a time")
    return Event(item, bool(liked), None if time is None else _seconds(time))


def _seconds(time: object) -> float:
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise TypeError("a time must be a number of seconds")
    if not MIN_TIME_S <= time <= MAX_TIME_S:
        raise ValueError("a time must be in the years 1 to 9999")
    return float(time)
