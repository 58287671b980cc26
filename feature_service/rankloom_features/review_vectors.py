"""Vectors of reviews as a part of a bundle: the newest of each user and of each item.

The file has a digest in place of a user's id, and none of it is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rankloom_features.bundled_tables import BundledTables, TableFormat, write_tables
from rankloom_features.events import SAME_TIME_S, Event

Inserts = dict[str, Iterable[Sequence[object]]]
UNKNOWN: Final = 0  # the code of every user, or item, that the towers have not learnt
ORIGIN_TABLE: Final = (
    "CREATE TABLE origin (encoder TEXT NOT NULL, towers TEXT NOT NULL, dim INTEGER NOT NULL, "
    "most INTEGER NOT NULL) STRICT"
)
SIDE_TABLE: Final = (
    "CREATE TABLE {0} (key BLOB PRIMARY KEY, code INTEGER NOT NULL, times BLOB NOT NULL, "
    "vectors BLOB NOT NULL) STRICT, WITHOUT ROWID"
)
_FORMAT: Final = TableFormat(
    content="vectors of reviews",
    application=0x724C7276,  # "rLrv"
    version=1,
    tables=(ORIGIN_TABLE, SIDE_TABLE.format("users"), SIDE_TABLE.format("items")),
)
_TIME, VALUE = np.dtype("<f8"), np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class ReviewOrigin:
    """What vectors and codes belong to: SHA-256 of the text encoder and of the towers' programs.

    ``dim``: of a vector. ``most``: reviews of a user, or an item, that towers see.
    """

    encoder: str
    towers: str
    dim: int
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class NewestReviews:
    """Of one user or item, oldest first.

    ``code``: what the towers know it as. ``times``: (n,) float64 seconds since 1970 UTC.
    ``vectors``: (n, dim) float32.
    """

    code: int
    times: NDArray[np.float64]
    vectors: NDArray[np.float32]


class ReviewSource(Protocol):
    """The reviews that towers see. Safe from several threads; each lookup may block on the disk."""

    origin: ReviewOrigin

    def of_item(self, item_id: str) -> NewestReviews:
        """Raises UnreadableTablesError."""
        ...

    def of_history(self, user_id: str | None, events: Sequence[Event]) -> NewestReviews:
        """Those of a user that are among the events. Raises UnreadableTablesError."""
        ...


class ReviewVectors:
    """The vectors of one bundle. Safe from several threads; each lookup may block on the disk."""

    def __init__(self, path: Path) -> None:
        """Raises TablesError or UnreadableTablesError."""
        self._tables = BundledTables(path, _FORMAT)
        self.origin = read_origin(self._tables)

    def of_user(self, user_id: str) -> NewestReviews:
        """Raises UnreadableTablesError."""
        return newest_of(self._tables, "users", user_id, self.origin.dim)

    def of_item(self, item_id: str) -> NewestReviews:
        """Raises UnreadableTablesError."""
        return newest_of(self._tables, "items", item_id, self.origin.dim)

    def of_history(self, user_id: str | None, events: Sequence[Event]) -> NewestReviews:
        """The user's reviews that are among the events; an unknown user if none is.

        Raises UnreadableTablesError.
        """
        newest = self.of_user(user_id or "")
        times = np.array([event.time for event in events if event.time is not None])
        apart = np.abs(newest.times[:, None] - times[None])
        kept = (apart < SAME_TIME_S).any(axis=1)
        code = newest.code if kept.any() else UNKNOWN
        return NewestReviews(code, newest.times[kept], newest.vectors[kept])


def read_origin(tables: BundledTables) -> ReviewOrigin:
    """Raises UnreadableTablesError."""
    [origin] = tables.rows("SELECT encoder, towers, dim, most FROM origin")
    return ReviewOrigin(*origin)


def newest_of(tables: BundledTables, side: str, name: str, dim: int) -> NewestReviews:
    """Of one user, or item. ``side``: the table. Raises UnreadableTablesError."""
    query = f"SELECT code, times, vectors FROM {side} WHERE key = ?"
    for code, times, vectors in tables.rows(query, digest_of(name)):
        values = np.frombuffer(vectors, VALUE).reshape(-1, dim).astype(np.float32)
        return NewestReviews(code, np.frombuffer(times, _TIME).astype(np.float64), values)
    return NewestReviews(UNKNOWN, np.zeros(0), np.zeros((0, dim), np.float32))


def write_review_vectors(
    path: Path,
    origin: ReviewOrigin,
    users: Iterable[tuple[str, NewestReviews]],
    items: Iterable[tuple[str, NewestReviews]],
) -> None:
    """Writes a new file, in which equal vectors give equal bytes."""
    inserts: Inserts = {
        **origin_rows(origin),
        "INSERT INTO users VALUES (?, ?, ?, ?)": side_rows(users),
        "INSERT INTO items VALUES (?, ?, ?, ?)": side_rows(items),
    }
    write_tables(path, _FORMAT, inserts)


def origin_rows(origin: ReviewOrigin) -> Inserts:
    """The statement that writes it, with its row."""
    row = (origin.encoder, origin.towers, origin.dim, origin.most)
    return {"INSERT INTO origin VALUES (?, ?, ?, ?)": [row]}


def side_rows(named: Iterable[tuple[str, NewestReviews]]) -> list[tuple[bytes, int, bytes, bytes]]:
    """Rows of a table of users, or items, in the order of their keys."""
    return sorted(
        (
            digest_of(name),
            newest.code,
            newest.times.astype(_TIME).tobytes(),
            newest.vectors.astype(VALUE).tobytes(),
        )
        for name, newest in named
    )


def digest_of(name: str) -> bytes:
    """(16 bytes) what stands for a name in these files."""
    return blake2b(name.encode(), digest_size=16).digest()
