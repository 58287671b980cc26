"""Vectors of reviews as a part of a bundle: the newest of each user and of each item.

The file has a digest in place of a user's id, and none of it is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rankloom_features.bundled_tables import BundledTables, TableFormat, write_tables

UNKNOWN: Final = 0  # the code of every user, or item, that the towers have not learnt
_SIDE: Final = (
    "CREATE TABLE {0} (key BLOB PRIMARY KEY, code INTEGER NOT NULL, times BLOB NOT NULL, "
    "vectors BLOB NOT NULL) STRICT, WITHOUT ROWID"
)
_FORMAT: Final = TableFormat(
    content="vectors of reviews",
    application=0x724C7276,  # "rLrv"
    version=1,
    tables=(
        "CREATE TABLE origin (encoder TEXT NOT NULL, towers TEXT NOT NULL, dim INTEGER NOT NULL, "
        "most INTEGER NOT NULL) STRICT",
        _SIDE.format("users"),
        _SIDE.format("items"),
    ),
)
_TIME, _VALUE = np.dtype("<f8"), np.dtype("<f4")


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


class ReviewVectors:
    """The vectors of one bundle. Safe from several threads; each lookup may block on the disk."""

    def __init__(self, path: Path) -> None:
        """Raises TablesError or UnreadableTablesError."""
        self._tables = BundledTables(path, _FORMAT)
        [origin] = self._tables.rows("SELECT encoder, towers, dim, most FROM origin")
        self.origin = ReviewOrigin(*origin)

    def of_user(self, user_id: str) -> NewestReviews:
        """Raises UnreadableTablesError."""
        return self._of("SELECT code, times, vectors FROM users WHERE key = ?", user_id)

    def of_item(self, item_id: str) -> NewestReviews:
        """Raises UnreadableTablesError."""
        return self._of("SELECT code, times, vectors FROM items WHERE key = ?", item_id)

    def _of(self, query: str, name: str) -> NewestReviews:
        dim = self.origin.dim
        for code, times, vectors in self._tables.rows(query, _key_of(name)):
            values = np.frombuffer(vectors, _VALUE).reshape(-1, dim).astype(np.float32)
            return NewestReviews(code, np.frombuffer(times, _TIME).astype(np.float64), values)
        return NewestReviews(UNKNOWN, np.zeros(0), np.zeros((0, dim), np.float32))


def write_review_vectors(
    path: Path,
    origin: ReviewOrigin,
    users: Iterable[tuple[str, NewestReviews]],
    items: Iterable[tuple[str, NewestReviews]],
) -> None:
    """Writes a new file, in which equal vectors give equal bytes."""
    of_origin = (origin.encoder, origin.towers, origin.dim, origin.most)
    inserts: dict[str, Iterable[Sequence[object]]] = {
        "INSERT INTO origin VALUES (?, ?, ?, ?)": [of_origin],
        "INSERT INTO users VALUES (?, ?, ?, ?)": sorted(_row_of(*each) for each in users),
        "INSERT INTO items VALUES (?, ?, ?, ?)": sorted(_row_of(*each) for each in items),
    }
    write_tables(path, _FORMAT, inserts)


def _row_of(name: str, newest: NewestReviews) -> tuple[bytes, int, bytes, bytes]:
    times, vectors = newest.times.astype(_TIME).tobytes(), newest.vectors.astype(_VALUE).tobytes()
    return _key_of(name), newest.code, times, vectors


def _key_of(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()
