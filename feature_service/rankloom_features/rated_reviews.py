"""Vectors of training reviews as a part of a bundle whose own trees read what towers say of them.

A review belongs to an event here and not to a user, so that a history that a caller gives has its
reviews too. The file has a digest in place of each event, and no user.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rankloom_features.bundled_tables import BundledTables, TableFormat, write_tables
from rankloom_features.events import Event
from rankloom_features.review_vectors import (
    ORIGIN_TABLE,
    SIDE_TABLE,
    UNKNOWN,
    VALUE,
    Inserts,
    NewestReviews,
    ReviewOrigin,
    digest_of,
    newest_of,
    origin_rows,
    read_origin,
    side_rows,
)

_FORMAT: Final = TableFormat(
    content="reviews of events",
    application=0x724C7272,  # "rLrr"
    version=1,
    tables=(
        ORIGIN_TABLE,
        "CREATE TABLE events (key BLOB PRIMARY KEY, vector BLOB NOT NULL) STRICT, WITHOUT ROWID",
        SIDE_TABLE.format("items"),
    ),
)
_AT_ONCE: Final = 64  # events that are looked for together


class RatedReviews:
    """The reviews of one bundle. Safe from several threads; each lookup may block on the disk."""

    def __init__(self, path: Path) -> None:
        """Raises TablesError or UnreadableTablesError."""
        self._tables = BundledTables(path, _FORMAT)
        self.origin = read_origin(self._tables)

    def of_item(self, item_id: str) -> NewestReviews:
        """Raises UnreadableTablesError."""
        return newest_of(self._tables, "items", item_id, self.origin.dim)

    def of_history(self, user_id: str | None, events: Sequence[Event]) -> NewestReviews:
        """The newest of the events that have a review, of a user who is unknown to the towers.

        Raises UnreadableTablesError.
        """
        found: list[tuple[float, bytes]] = []
        for end in range(len(events), 0, -_AT_ONCE):
            found = self._of_events(events[max(end - _AT_ONCE, 0) : end]) + found
            if len(found) >= self.origin.most:
                break
        newest = found[-self.origin.most :]
        values = np.frombuffer(b"".join(vector for _, vector in newest), VALUE)
        times = np.array([time for time, _ in newest], np.float64)
        vectors = values.reshape(-1, self.origin.dim).astype(np.float32)
        return NewestReviews(UNKNOWN, times, vectors)

    def _of_events(self, events: Sequence[Event]) -> list[tuple[float, bytes]]:
        """Time and vector of those that have a review."""
        keys = [
            (each.time, event_key(each.item_id, each.time, liked=each.liked))
            for each in events
            if each.time is not None
        ]
        marks = ", ".join("?" * len(keys))
        query = f"SELECT key, vector FROM events WHERE key IN ({marks})"
        known = dict(self._tables.rows(query, *(key for _, key in keys)))
        return [(time, known[key]) for time, key in keys if key in known]


def event_key(item_id: str, time: float, *, liked: bool) -> bytes:
    """(16 bytes) what stands for an event, whoever's it is. ``time``: in seconds."""
    return digest_of(f"{round(time * 1000)} {int(liked)} {item_id}")


def write_rated_reviews(
    path: Path,
    origin: ReviewOrigin,
    events: Iterable[tuple[bytes, NDArray[np.float32]]],
    items: Iterable[tuple[str, NewestReviews]],
) -> None:
    """Writes a new file, in which equal reviews give equal bytes. ``events``: key and vector."""
    rows = sorted((key, vector.astype(VALUE).tobytes()) for key, vector in events)
    inserts: Inserts = {
        **origin_rows(origin),
        "INSERT INTO events VALUES (?, ?)": rows,
        "INSERT INTO items VALUES (?, ?, ?, ?)": side_rows(items),
    }
    write_tables(path, _FORMAT, inserts)
