"""What is read and written in the tables of one user's partition."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from rankloom_features.event_store.keys import NUM_PARTITIONS
from rankloom_features.event_store.store import LongHistoryError, StoredHistory
from rankloom_features.events import Event

MAX_POSITION: Final = (1 << 63) - 1  # of SQLite's integers
NO_LIMIT: Final = -1  # to SQLite


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
    db: sqlite3.Connection,
    partition: int,
    user_id: str,
    until: int,
    item_ids: MutableMapping[int, str],
    most: int | None,
) -> StoredHistory:
    """The events up to a position. One statement, so that all rows are of one moment.

    ``item_ids``: the ids of items that were read before, by number; further ones are added. Raises
    LongHistoryError for more than ``most`` events.
    """
    rows = db.execute(  # CROSS JOIN: in this order
        f"SELECT item, liked, time, position FROM users_{partition} AS users "
        f"CROSS JOIN events_{partition} AS events ON events.user = users.number "
        "WHERE users.id = ? AND position <= ? LIMIT ?",
        (user_id, until, NO_LIMIT if most is None else most + 1),
    ).fetchall()
    if most is not None and len(rows) > most:
        raise LongHistoryError
    rows.sort(key=itemgetter(2, 3))  # by time and position; SQLite's sorter takes twice as long
    numbers, liked, times, positions = zip(*rows, strict=True) if rows else ((), (), (), ())
    items = _item_ids(db, numbers, item_ids)
    events = tuple(map(Event._make, zip(items, map(bool, liked), times, strict=True)))
    return StoredHistory(events, max(positions, default=0))


def _item_ids(
    db: sqlite3.Connection, numbers: Sequence[int], known: MutableMapping[int, str]
) -> list[str]:
    """The ids of items by number. An item keeps its number, so that each is read once."""
    with suppress(KeyError):
        return [known[number] for number in numbers]
    query = "SELECT number, id FROM items WHERE number IN (SELECT value FROM json_each(?))"
    known.update(db.execute(query, (json.dumps([*{*numbers} - known.keys()]),)))
    if not known.keys() >= {*numbers}:
        error = sqlite3.DatabaseError("an event is of an item that is not there")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    return [known[number] for number in numbers]


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
    last = last_position(db)
    positions = list(range(last + 1, last + 1 + len(rows)))
    # Partition by partition, so that each page is found and written once.
    for partition, places in sorted(_places(rows).items()):
        own = [rows[place] for place in places]
        given = [positions[place] for place in places]
        stored = _store_in(db, partition, own, [items[row.item_id] for row in own], given)
        for place, position in zip(places, stored, strict=True):
            positions[place] = position
    set_last_position(db, max([last, *positions]))
    return positions


def _places(rows: Sequence[EventRow]) -> dict[int, list[int]]:
    """Where each partition's rows stand, in their order."""
    found: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(row.partition, []).append(place)
    return found


def _store_in(
    db: sqlite3.Connection,
    partition: int,
    rows: Sequence[EventRow],
    items: Sequence[int],
    positions: Sequence[int],
) -> Sequence[int]:
    """The positions that events of one partition have now, or had already."""
    insert = (
        f"INSERT INTO events_{partition} SELECT number, ?, ?, ?, ?, ? "
        f"FROM users_{partition} WHERE id = ? ON CONFLICT DO NOTHING"
    )
    events = [
        (row.key, position, item, row.liked, row.time, row.user_id)
        for row, position, item in zip(rows, positions, items, strict=True)
    ]
    num_new = db.executemany(insert, events).rowcount
    if num_new < len(rows):  # some users are new, or some events are known
        add_user = f"INSERT INTO users_{partition} (id) VALUES (?) ON CONFLICT DO NOTHING"
        if db.executemany(add_user, [(row.user_id,) for row in rows]).rowcount:
            num_new += db.executemany(insert, events).rowcount
    if num_new == len(rows):
        return positions
    return [_position_of(db, row) for row in rows]


def _position_of(db: sqlite3.Connection, row: EventRow) -> int:
    """Of an event that is stored."""
    query = (
        f"SELECT position FROM events_{row.partition} "
        f"WHERE user = (SELECT number FROM users_{row.partition} WHERE id = ?) AND key = ?"
    )
    [position] = db.execute(query, (row.user_id, row.key)).fetchone()
    return int(position)


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
