"""What is read and written in the tables of one user's partition."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from rankloom_features.event_store.keys import NUM_PARTITIONS
from rankloom_features.event_store.store import StoredHistory
from rankloom_features.events import Event

MAX_POSITION: Final = (1 << 63) - 1  # of SQLite's integers


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event to store. ``key``: of its id."""

    partition: int
    user_id: str
    key: bytes
    item_id: str
    liked: bool
    time: float


def version_of(db: sqlite3.Connection, partition: int, user_id: str) -> int:
    query = (
        f"SELECT coalesce(max(position), 0) FROM events_{partition} "
        f"WHERE user = (SELECT number FROM users_{partition} WHERE id = ?)"
    )
    [version] = db.execute(query, (user_id,)).fetchone()
    return int(version)


def history_of_user(
    db: sqlite3.Connection, partition: int, user_id: str, until: int
) -> StoredHistory:
    """The events up to a position. One statement, so that all rows are of one moment."""
    rows = db.execute(  # CROSS JOIN: in this order
        f"SELECT items.id, liked, time, position FROM users_{partition} AS users "
        f"CROSS JOIN events_{partition} AS events ON events.user = users.number "
        "CROSS JOIN items ON items.number = events.item "
        "WHERE users.id = ? AND position <= ? ORDER BY time, position",
        (user_id, until),
    ).fetchall()
    events = tuple(Event(item, bool(liked), time) for item, liked, time, _ in rows)
    return StoredHistory(events, max((position for *_, position in rows), default=0))


def users_in(db: sqlite3.Connection, partition: int) -> list[str]:
    """In the order in which they came."""
    query = f"SELECT id FROM users_{partition} ORDER BY number"
    return [user for (user,) in db.execute(query)]


def store_rows(
    db: sqlite3.Connection, rows: Sequence[EventRow], items: MutableMapping[str, int]
) -> list[int]:
    """Stores the events that are new, within the caller's transaction; returns all positions.

    ``items``: the numbers of items that are known already; new ones are added.
    """
    add_item_numbers(db, {row.item_id for row in rows}, items)
    last, positions = last_position(db), list[int]()
    for row in rows:
        position = _stored_position(db, row, items[row.item_id], last + 1)
        last = max(last, position)
        positions.append(position)
    set_last_position(db, last)
    return positions


def _stored_position(db: sqlite3.Connection, row: EventRow, item: int, position: int) -> int:
    """The position that the event has now, or had already."""
    event = (row.key, position, item, row.liked, row.time, row.user_id)
    insert = (
        f"INSERT INTO events_{row.partition} SELECT number, ?, ?, ?, ?, ? "
        f"FROM users_{row.partition} WHERE id = ? ON CONFLICT DO NOTHING"
    )
    if db.execute(insert, event).rowcount:
        return position
    user = user_number(db, row.partition, row.user_id)  # a new user, or a known event
    if db.execute(insert, event).rowcount:
        return position
    query = f"SELECT position FROM events_{row.partition} WHERE user = ? AND key = ?"
    [found] = db.execute(query, (user, row.key)).fetchone()
    return int(found)


def user_number(db: sqlite3.Connection, partition: int, user_id: str) -> int:
    """The user's number within the partition; a new user gets one."""
    query = f"SELECT number FROM users_{partition} WHERE id = ?"
    if found := db.execute(query, (user_id,)).fetchone():
        return int(found[0])
    insert = f"INSERT INTO users_{partition} (id) VALUES (?)"
    return int(db.execute(insert, (user_id,)).lastrowid or 0)


def add_item_numbers(
    db: sqlite3.Connection, item_ids: Iterable[str], items: MutableMapping[str, int]
) -> None:
    """Adds the numbers of items that are not in ``items``; an item new to the store gets one."""
    items.update({item: _item_number(db, item) for item in item_ids if item not in items})


def _item_number(db: sqlite3.Connection, item_id: str) -> int:
    if found := db.execute("SELECT number FROM items WHERE id = ?", (item_id,)).fetchone():
        return int(found[0])
    return int(db.execute("INSERT INTO items (id) VALUES (?)", (item_id,)).lastrowid or 0)


def last_position(db: sqlite3.Connection) -> int:
    """Of the event that was stored last, of any user."""
    [position] = db.execute("SELECT position FROM store").fetchone()
    return int(position)


def set_last_position(db: sqlite3.Connection, position: int) -> None:
    db.execute("UPDATE store SET position = ?", (position,))


def delete_user(db: sqlite3.Connection, partition: int, user_id: str) -> int:
    """Removes the user, within the caller's transaction; returns the number of events.

    The tables are emptied and filled again, which overwrites each of their pages.
    """
    query = f"SELECT number FROM users_{partition} WHERE id = ?"
    if not (found := db.execute(query, (user_id,)).fetchone()):
        return 0
    deleted = db.execute(f"DELETE FROM events_{partition} WHERE user = ?", found).rowcount
    db.execute(f"DELETE FROM users_{partition} WHERE number = ?", found)
    for table in (f"events_{partition}", f"users_{partition}"):
        db.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {table}")
        db.execute(f"DELETE FROM {table}")
        db.execute(f"INSERT INTO {table} SELECT * FROM temp.kept")
        db.execute("DROP TABLE temp.kept")
    return deleted


def counts(db: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """Users and events of each partition; a statement for each, so that none lasts long."""
    for number in range(NUM_PARTITIONS):
        query = f"SELECT (SELECT count(*) FROM users_{number}), count(*) FROM events_{number}"
        yield db.execute(query).fetchone()
