"""Many histories at once: runs of shared arrays, so that a million rows can share their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.events import History


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """n histories; history i is the events from ``first[i]`` up to ``end[i]``, oldest first.

    ``index``: (events,) int64 catalogue indices. ``liked``: (events,) bool. ``time``: (events,)
    float64 seconds, NaN where unknown. ``first``, ``end``: (n,) int64. The events are shared:
    picking or joining histories copies no event twice.
    """

    index: NDArray[np.int64]
    liked: NDArray[np.bool_]
    time: NDArray[np.float64]
    first: NDArray[np.int64]
    end: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.end)

    @classmethod
    def of(cls, histories: Sequence[History]) -> Histories:
        """The same histories, one after the other."""
        if len(histories) == 1:
            (one,) = histories
            first, end = np.zeros(1, np.int64), np.array([len(one)], np.int64)
            return cls(one.index, one.liked, one.time, first, end)
        lengths = [len(history) for history in histories]
        end = np.cumsum(lengths, dtype=np.int64)
        none = History.untimed(np.zeros(0, np.int64), np.zeros(0, np.bool_))
        return cls(
            np.concatenate([one.index for one in (none, *histories)]),
            np.concatenate([one.liked for one in (none, *histories)]),
            np.concatenate([one.time for one in (none, *histories)]),
            end - np.array(lengths, dtype=np.int64),
            end,
        )

    @classmethod
    def joined(cls, parts: Sequence[Histories]) -> Histories:
        """The histories of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.index) for part in parts[:-1])])
        moved = list(zip(parts, starts, strict=True))
        return cls(
            np.concatenate([part.index for part in parts]),
            np.concatenate([part.liked for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.first + start for part, start in moved]),
            np.concatenate([part.end + start for part, start in moved]),
        )

    def only(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Histories:
        """The histories that a mask, indices or a slice selects."""
        return Histories(self.index, self.liked, self.time, self.first[rows], self.end[rows])

    def between(self, first: int, end: int) -> History:
        """One history of the shared events from ``first`` up to ``end``."""
        part = slice(first, end)
        return History(self.index[part], self.liked[part], self.time[part])

    def newest(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The newest events as (n, length) items and labels, padded on the left with 0.

        An item is its catalogue index + 1; a label is 1 where the item was liked.
        """
        if len(self) == 1:
            return self._newest_of_one(length)
        at = self.end[:, None] - np.arange(length, 0, -1)
        seen = at >= self.first[:, None]
        if not len(self.index):
            return np.zeros(at.shape, np.int64), np.zeros(at.shape, np.int64)
        items = self.index.take(at, mode="clip")  # what is clipped is not seen
        items += 1
        items *= seen
        return items, (self.liked.take(at, mode="clip") & seen).astype(np.int64)

    def _newest_of_one(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A single user's call waits for each operation on arrays, however short these are."""
        items, liked = np.zeros((2, 1, length), np.int64)
        end = int(self.end[0])
        first = max(int(self.first[0]), end - length)
        if end > first:
            items[0, first - end :] = self.index[first:end]
            items[0, first - end :] += 1
            liked[0, first - end :] = self.liked[first:end]
        return items, liked
