"""Many events of one partition at once, as columns."""

from __future__ import annotations

import sqlite3
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rankloom_features.event_store.keys import KEY_BYTES, id_of
from rankloom_features.event_store.partitions import (
    add_item_numbers,
    last_position,
    set_last_position,
    user_number,
)

_TAIL = np.dtype([("time", "<f8"), ("liked", "u1"), ("occurrence", "<u4")])


@dataclass(frozen=True, slots=True, eq=False)
class EventColumns:
    """n events of users of one partition, in the order in which they are to be stored.

    ``user``, ``item``: (n,) int64 indices into ``user_ids`` and ``item_ids``, which are distinct.
    ``liked``: (n,) bool. ``time``: (n,) float64, seconds since 1970. ``keys``: n keys of event
    ids, or None: equal rows of a user are then told apart by their number.
    """

    user_ids: Sequence[str]
    user: NDArray[np.int64]
    item_ids: Sequence[str]
    item: NDArray[np.int64]
    liked: NDArray[np.bool_]
    time: NDArray[np.float64]
    keys: Sequence[bytes] | None

    def known_keys(self) -> Sequence[bytes]:
        """The given keys, or ones made of the rows: the same rows always have the same keys."""
        if self.keys is not None:
            return self.keys
        items, tails = [item.encode() for item in self.item_ids], self._tails()
        return [
            blake2b(items[item] + tail, digest_size=KEY_BYTES).digest()
            for item, tail in zip(self.item.tolist(), tails, strict=True)
        ]

    def _tails(self) -> list[bytes]:
        """All that tells a row from the user's other rows of its item."""
        tails = np.empty(len(self.user), dtype=_TAIL)
        tails["time"], tails["liked"] = self.time, self.liked
        tails["occurrence"] = occurrences(self)
        content, size = tails.tobytes(), _TAIL.itemsize
        return [content[start : start + size] for start in range(0, len(content), size)]


def occurrences(columns: EventColumns) -> NDArray[np.int64]:
    """(n,) how many equal rows stand before each row."""
    parts = (columns.liked, columns.time, columns.item, columns.user)
    order = np.lexsort(parts)  # stable: equal rows stay in their order
    differs = np.ones(len(order), dtype=np.bool_)
    differs[1:] = np.any([np.diff(part[order]) != 0 for part in map(np.asarray, parts)], axis=0)
    row = np.arange(len(order))
    found = np.empty(len(order), dtype=np.int64)
    found[order] = row - np.maximum.accumulate(np.where(differs, row, 0))
    return found


def store_columns(
    db: sqlite3.Connection,
    partition: int,
    columns: EventColumns,
    items: MutableMapping[str, int],
) -> int:
    """Stores the events that are new, within the caller's transaction; returns how many.

    ``items``: the numbers of items that are known already; new ones are added.
    """
    add_item_numbers(db, columns.item_ids, items)
    users = [user_number(db, partition, user) for user in columns.user_ids]
    last, before = last_position(db), db.total_changes
    insert = f"INSERT INTO events_{partition} VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    # In the order of the table, so that each of its pages is written once.
    db.executemany(insert, sorted(_rows(columns, users, items, last + 1)))
    if num_stored := db.total_changes - before:
        set_last_position(db, last + len(columns.user))
    return num_stored


def _rows(
    columns: EventColumns, users: Sequence[int], items: MutableMapping[str, int], first: int
) -> zip[tuple[int, bytes, int, int, bool, float]]:
    numbers = np.array([items[item] for item in columns.item_ids], dtype=np.int64)
    return zip(
        np.array(users, dtype=np.int64)[columns.user].tolist(),
        columns.known_keys(),
        range(first, first + len(columns.user)),
        numbers[columns.item].tolist(),
        columns.liked.tolist(),
        columns.time.tolist(),
        strict=True,
    )


def read_columns(db: sqlite3.Connection, partition: int) -> tuple[Sequence[object], ...]:
    """User ids, item ids, 0 or 1, times and event ids of a partition, by user and time."""
    rows = db.execute(
        f"SELECT users.id, items.id, liked, time, key FROM events_{partition} AS events "
        f"CROSS JOIN users_{partition} AS users ON users.number = events.user "
        "CROSS JOIN items ON items.number = events.item "
        "ORDER BY events.user, time, position"
    ).fetchall()
    users, found, liked, times, keys = zip(*rows, strict=True) if rows else ((),) * 5
    return users, found, liked, times, tuple(map(id_of, keys))
