"""The event store of a server: one SQLite file, which several processes may share."""

from __future__ import annotations

import math
import sqlite3
from collections import deque
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

from rankloom_features.event_store.bulk import EventColumns, read_columns, store_columns
from rankloom_features.event_store.keys import NUM_PARTITIONS, key_of, partition_of
from rankloom_features.event_store.partitions import (
    MAX_POSITION,
    EventRow,
    counts,
    delete_user,
    history_of_user,
    last_position,
    store_rows,
    users_in,
    version_of,
)
from rankloom_features.event_store.sqlite_file import (
    BUSY_S,
    Readers,
    connect,
    opened,
    transaction,
    translated,
    truncate_log,
)
from rankloom_features.event_store.store import (
    EventStoreError,
    StoredHistory,
    StoreStatistics,
    UserEvent,
)

_MAX_ITEMS: Final = 200_000  # whose numbers and ids are kept in memory, some 30 MB each way


def copy_events(source: Path, target: Path) -> None:
    """Writes a copy of a store, which may be in use, to a new file. Raises EventStoreError."""
    begun = target.with_name(f"{target.name}.begun")
    begun.unlink(missing_ok=True)
    with (
        translated(source),
        closing(connect(source)) as read,
        translated(target),
        closing(sqlite3.connect(begun)) as written,
    ):
        read.backup(written)
    begun.replace(target)


@dataclass(frozen=True, slots=True, eq=False)
class _Append:
    rows: tuple[EventRow, ...]
    positions: Future[tuple[int, ...]] = field(default_factory=Future)


class SqliteEventStore:
    """An EventStore in one file, for any number of threads and processes of one machine.

    Readers never wait. Writers wait for each other; threads of one process that append at once
    share a transaction. After a user was forgotten, neither the id nor the events stand in the
    file or in its write-ahead log; items stay, since they are the catalogue's.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises EventStoreError."""
        self.path = path
        self._writer = opened(path)
        self._readers = Readers(path)
        self._writing = Lock()
        self._waiting: deque[_Append] = deque()
        self._items: dict[str, int] = {}
        self._item_ids: dict[int, str] = {}

    def version(self, user_id: str) -> int:
        with translated(self.path), self._readers.reader() as db:
            return version_of(db, partition_of(user_id), user_id)

    def history(
        self, user_id: str, version: int | None = None, most: int | None = None
    ) -> StoredHistory:
        until = MAX_POSITION if version is None else version
        with translated(self.path), self._readers.reader() as db:
            known, partition = self._known_ids(), partition_of(user_id)
            return history_of_user(db, partition, user_id, until, known, most)

    def append(self, events: Sequence[UserEvent]) -> tuple[int, ...]:
        """Also raises ValueError: an event without a finite time, or an id that is not text."""
        append = _Append(tuple(map(_row_of, events)))
        self._waiting.append(append)
        with self._writing:
            if not append.positions.done():  # else another thread stored it
                self._store_waiting()
        return append.positions.result()

    def users(self) -> Iterator[str]:
        for partition in range(NUM_PARTITIONS):
            with translated(self.path), self._readers.reader() as db:
                users = users_in(db, partition)
            yield from users

    def forget(self, user_id: str) -> int:
        """Raises EventStoreError, too, if a reader keeps old pages alive; then forget again."""
        with self._writing, translated(self.path):
            with transaction(self._writer):
                num_events = delete_user(self._writer, partition_of(user_id), user_id)
            self._forget_log()
        return num_events

    def statistics(self) -> StoreStatistics:
        """While others write, the counts are of slightly different moments."""
        with translated(self.path), self._readers.reader() as db:
            num_users, num_events = map(sum, zip(*counts(db), strict=True))
            return StoreStatistics(num_users, num_events, last_position(db), self._num_bytes())

    def store_columns(
        self, partition: int, columns: EventColumns, items: MutableMapping[str, int]
    ) -> int:
        """Stores many events of users of one partition; returns how many were new.

        ``items``: item numbers that the caller keeps from one call to the next. After an error,
        give an empty one.
        """
        with self._writing, translated(self.path), transaction(self._writer):
            return store_columns(self._writer, partition, columns, items)

    def read_columns(self, partition: int) -> tuple[Sequence[object], ...]:
        """All events of a partition, each user's oldest first.

        User ids, item ids, 0 or 1, times and event ids: each with one entry per event.
        """
        with translated(self.path), self._readers.reader() as db:
            return read_columns(db, partition)

    def close(self) -> None:
        with self._writing, translated(self.path):
            self._readers.close()
            self._writer.close()

    def _known_ids(self) -> dict[int, str]:
        """Another one once it is full, since other threads may read from it."""
        if len(self._item_ids) > _MAX_ITEMS:
            self._item_ids = {}
        return self._item_ids

    def _store_waiting(self) -> None:
        """Stores all appends that wait, in one transaction; all of them fail together."""
        if len(self._items) > _MAX_ITEMS:
            self._items.clear()
        appends = [self._waiting.popleft() for _ in range(len(self._waiting))]
        rows = [row for append in appends for row in append.rows]
        try:
            with translated(self.path), transaction(self._writer):
                positions = iter(store_rows(self._writer, rows, self._items))
        except BaseException as error:
            self._items.clear()  # some may be of the transaction that was undone
            for append in appends:
                append.positions.set_exception(error)
            return
        for append in appends:
            append.positions.set_result(tuple(next(positions) for _ in append.rows))

    def _forget_log(self) -> None:
        if not truncate_log(self._writer, BUSY_S):
            raise EventStoreError(
                f"{self.path}: the user is forgotten, but a process that has read for "
                f"{BUSY_S:.0f} s keeps old pages in {self.path.name}-wal; end it, then forget again"
            )

    def _num_bytes(self) -> int:
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


def _row_of(event: UserEvent) -> EventRow:
    user, key, time = event.user_id, key_of(event.event_id), event.event.time
    event.event.item_id.encode()  # refused here, and not among the events of others
    if time is None or not math.isfinite(time):
        raise ValueError("an event to store needs a finite time")
    return EventRow(
        partition_of(user), user, key, event.event.item_id, event.event.liked, float(time)
    )
