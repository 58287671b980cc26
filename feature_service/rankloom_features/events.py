"""Events of users, and a history as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue

MIN_TIME_S, MAX_TIME_S = -62_135_596_800, 253_402_300_799  # the years 1 to 9999
# Times closer than this are one time: they cross the wire as nanoseconds, and are floats here.
SAME_TIME_S = 1e-3


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
