"""One SQLite file as an event store's: created, checked, connected to; its errors in our words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Final

from rankloom_features.event_store.keys import NUM_PARTITIONS
from rankloom_features.event_store.store import (
    EventStoreDamagedError,
    EventStoreError,
    EventStoreFullError,
)

FORMAT: Final = 1
BUSY_S: Final = 10.0  # how long a write waits for one of another process
_APPLICATION: Final = 0x724C6576  # "rLev"

_BEGIN: Final = (
    "PRAGMA synchronous=FULL",  # a commit is on the disk when it returns
    "PRAGMA secure_delete=ON",  # what is deleted is overwritten
    "PRAGMA temp_store=MEMORY",  # nothing of a user goes to a temporary file
    # Pages of the write-ahead log, 32 MiB: events of many users write many pages, and a page that
    # is written again before the log is brought into the file goes there once.
    "PRAGMA wal_autocheckpoint=8192",
)
# Users and their events are spread over partitions, each a pair of tables, because forgetting a
# user rewrites the tables that the user is in. SQLite overwrites a deleted row, but not the copies
# that stay in the unused part of a page when rows move to another page.
_PARTITION: Final = (
    "CREATE TABLE users_{0} (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT",
    # Without row ids the events themselves are ordered by user: one user's are one or two pages.
    "CREATE TABLE events_{0} (user INTEGER NOT NULL, key BLOB NOT NULL, position INTEGER NOT NULL, "
    "item INTEGER NOT NULL, liked INTEGER NOT NULL, time REAL NOT NULL, "
    "PRIMARY KEY (user, key)) STRICT, WITHOUT ROWID",
)
_CREATE: Final = (
    "CREATE TABLE items (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE store (position INTEGER NOT NULL) STRICT",  # of the event stored last
    "INSERT INTO store VALUES (0)",
    *(table.format(number) for number in range(NUM_PARTITIONS) for table in _PARTITION),
    f"PRAGMA application_id={_APPLICATION}",
    f"PRAGMA user_version={FORMAT}",
)
_REMEDIES: Final = {
    sqlite3.SQLITE_BUSY: "another process has kept it locked; end that process, or try again",
    sqlite3.SQLITE_READONLY: "cannot be written; make the file and its folder writable for this "
    "process",
    sqlite3.SQLITE_CORRUPT: "a page is damaged; restore a backup, or export what can still be "
    "read and import it into a new store",
    sqlite3.SQLITE_NOTADB: "is not an event store; give another path, or move the file away",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that its folder exists and that this "
    "process may write there",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write; check the disk, then start again",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raises EventStoreError where SQLite raises. The texts hold no ids."""
    try:
        yield
    except sqlite3.Error as error:
        raise _error_of(path, error) from error


def _error_of(path: Path, error: sqlite3.Error) -> EventStoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits are details
    if code == sqlite3.SQLITE_FULL:
        remedy = "free some space; what was stored before can be read"
        return EventStoreFullError(f"{path}: no room on the disk; {remedy}")
    kind = EventStoreDamagedError if code == sqlite3.SQLITE_CORRUPT else EventStoreError
    return kind(f"{path}: {_REMEDIES.get(code, error)}")


def opened(path: Path) -> sqlite3.Connection:
    """A connection to the store, which is created if it is missing. Raises EventStoreError."""
    with translated(path):
        was_left = _has_log(path)  # a process that was killed may have left one
        db = connect(path)
        try:
            _create_or_check(db, path)
            truncate_log(db, 0.0)
            if was_left:
                _renew_log_index(db)
        except BaseException:
            db.close()
            raise
        return db


def connect(path: Path) -> sqlite3.Connection:
    """A connection that any one thread at a time may use."""
    mode = "immutable=1" if _on_read_only_disk(path) else "mode=rwc"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=4 * NUM_PARTITIONS,
    )
    for pragma in _BEGIN:
        db.execute(pragma)
    return db


def _on_read_only_disk(path: Path) -> bool:
    """Whether the file can be read as it is, and no process can be writing it."""
    log = path.with_name(f"{path.name}-wal")
    return path.exists() and not log.exists() and not os.access(path.parent, os.W_OK)


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _renew_log_index(db: sqlite3.Connection) -> None:
    """Writes once, since the first write to an empty log clears the log's index.

    After a crash, SQLite makes that index in memory that it does not clear, and maps it to a file:
    what this process held before, ids of users too, would stand there until then.
    """
    _set_wait(db, 0.0)
    with suppress(sqlite3.Error), transaction(db):  # whoever writes now clears it too
        db.execute(f"PRAGMA user_version={FORMAT}")
    truncate_log(db, 0.0)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; other processes wait to write until it ends."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself undoes what it has no room for
            db.execute("ROLLBACK")
        raise


def truncate_log(db: sqlite3.Connection, wait_s: float) -> bool:
    """Brings the write-ahead log into the file and empties it; False if others are in the way.

    Until then, the log may hold pages as they were before the last writes.
    """
    _set_wait(db, wait_s)
    try:
        [busy, _, _] = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        _set_wait(db, BUSY_S)
    return not busy


def _set_wait(db: sqlite3.Connection, wait_s: float) -> None:
    db.execute(f"PRAGMA busy_timeout={round(1_000 * wait_s)}")


def _create_or_check(db: sqlite3.Connection, path: Path) -> None:
    if _format_of(db, path) != FORMAT:
        db.execute("PRAGMA journal_mode=WAL")  # readers go on while one process writes
        with transaction(db):
            if _format_of(db, path) != FORMAT:  # another process may have been faster
                for statement in _CREATE:
                    db.execute(statement)


def _format_of(db: sqlite3.Connection, path: Path) -> int:
    """The file's format, 0 for a new file. Raises EventStoreError for any other file."""
    [application] = db.execute("PRAGMA application_id").fetchone()
    [found] = db.execute("PRAGMA user_version").fetchone()
    [num_tables] = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != _APPLICATION and (found or num_tables):
        raise EventStoreError(f"{path}: {_REMEDIES[sqlite3.SQLITE_NOTADB]}")
    if found > FORMAT:
        raise EventStoreError(
            f"{path}: format {found}, this version reads format {FORMAT}; use a newer rankloom"
        )
    return int(found)


class Readers:
    """Connections for reading, as many as threads read at once; each is used again."""

    def __init__(self, path: Path) -> None:
        self._path, self._closed = path, False
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that no other thread uses meanwhile."""
        if self._closed:
            raise sqlite3.ProgrammingError("the store was closed; open it again")
        try:
            db = self._idle.get_nowait()
        except Empty:
            db = connect(self._path)
        try:
            yield db
        finally:
            self._idle.put(db)
            if self._closed:
                self._close_idle()

    def close(self) -> None:
        """Closes all connections; those in use, once they were given back."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while not self._idle.empty():
            self._idle.get_nowait().close()
