"""SQLite files as parts of bundles: written once, and then read where they lie by many threads."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any


class TablesError(ValueError):
    """The file does not hold these tables."""


class UnreadableTablesError(Exception):
    """The file can no longer be read."""


@dataclass(frozen=True, slots=True)
class TableFormat:
    """``content``: what the file holds, for errors. ``application``: four bytes that mark it.

    ``tables``: the statements that create them.
    """

    content: str
    application: int
    version: int
    tables: tuple[str, ...]


class BundledTables:
    """Tables of a bundle. Safe from several threads; each query may block on the disk.

    The file must not change while it is open.
    """

    def __init__(self, path: Path, form: TableFormat) -> None:
        """Raises TablesError."""
        self._content, self._lock = form.content, Lock()
        self._file = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        weakref.finalize(self, self._file.close)
        try:
            _check(self._file, form)
        except sqlite3.Error as error:
            raise TablesError(f"is not a file of {form.content}: {error}") from error

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Raises UnreadableTablesError, without any of the values."""
        try:
            with self._lock, closing(self._file.execute(query, values)) as found:
                return found.fetchall()
        except sqlite3.Error as error:
            advice = "check the disk, and stage the bundle again"
            raise UnreadableTablesError(
                f"the bundle's {self._content} cannot be read: {error}; {advice}"
            ) from error


def write_tables(
    path: Path, form: TableFormat, inserts: Mapping[str, Iterable[Sequence[object]]]
) -> None:
    """Writes a new file. ``inserts``: statement → rows.

    Give rows in the order of their keys: pages are then full, and equal rows give equal bytes.
    """
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA synchronous=OFF")  # a file that was cut short is written anew
        file.execute(f"PRAGMA application_id={form.application}")
        file.execute(f"PRAGMA user_version={form.version}")
        for table in form.tables:
            file.execute(table)
        for insert, rows in inserts.items():
            file.executemany(insert, rows)


def _check(file: sqlite3.Connection, form: TableFormat) -> None:
    """Raises TablesError. Nothing but the tables may be there: views and triggers would be run."""
    file.execute("PRAGMA trusted_schema=OFF")
    [application] = file.execute("PRAGMA application_id").fetchone()
    [found] = file.execute("PRAGMA user_version").fetchone()
    if application != form.application:
        raise TablesError(f"is not a file of {form.content}")
    if found != form.version:
        raise TablesError(f"format {found}, this version reads format {form.version}")
    if file.execute("SELECT sql FROM sqlite_schema").fetchall() != [(sql,) for sql in form.tables]:
        raise TablesError(f"holds other tables than a file of {form.content} does")
