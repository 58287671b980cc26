"""Events of users, and a history as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue

MIN_TIME_S, MAX_TIME_S = -62_135_596_800, 253_402_300_799  # the years 1 to 9999
# Times closer than this are one time: they cross the wire as nanoseconds, and are floats here.
SAME_TIME_S = 1e-3


class Event(NamedTuple):
    """One interaction. ``time`` is in seconds since 1970 UTC, None where unknown.

    A tuple, since calls about many users make ten thousand: a frozen dataclass takes twice as long.
    """

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


def known_history(
    events: Sequence[Event], catalogue: Catalogue
) -> tuple[tuple[Event, ...], History]:
    """The events with items in the catalogue, in order, and the same as arrays."""
    index = [catalogue.index(event.item_id) for event in events]
    known = tuple(event for event, at in zip(events, index, strict=True) if at >= 0)
    _, liked, time = zip(*known, strict=True) if known else ((), (), ())
    return known, History(
        np.array([at for at in index if at >= 0], dtype=np.int64),
        np.array(liked, dtype=np.bool_),
        np.array(time, dtype=np.float64),  # None becomes NaN
    )


def without_each(events: Sequence[Event], newest: int) -> tuple[tuple[Event, ...], ...]:
    """The events without one of the last ``newest``, in the order of those."""
    first = max(len(events) - newest, 0)
    return tuple((*events[:at], *events[at + 1 :]) for at in range(first, len(events)))
