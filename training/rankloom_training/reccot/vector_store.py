"""Vectors of reviews on disk, by what they were made of, within a number of bytes."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import DataError

MAX_BYTES = 1 << 30
_TABLE = """CREATE TABLE IF NOT EXISTS vectors (
    key BLOB PRIMARY KEY, vector BLOB NOT NULL, used INTEGER NOT NULL) STRICT"""
_PAGES = "PRAGMA page_size = 16384"  # of a new file: several vectors to a page
_INDEX = "CREATE INDEX IF NOT EXISTS by_use ON vectors (used)"
Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VectorKey:
    """What a vector was made of. ``text_digest``: of review and rationale."""

    user_id: str
    item_id: str
    encoder: str
    text_digest: str

    @property
    def digest(self) -> bytes:
        parts = [
            each.encode() for each in (self.user_id, self.item_id, self.encoder, self.text_digest)
        ]
        return sha256(b"".join(struct.pack(">I", len(part)) + part for part in parts)).digest()


class VectorStore:
    """A bounded store; the vectors that were used longest ago give way. For one thread.

    The bound is of keys and vectors; the file has up to half as many bytes more. ``hits`` and
    ``misses`` count since it was opened. Each ``put`` is on disk as a whole or not at
    all.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        """Raises DataError if ``path`` is another kind of file."""
        self._max_bytes = max_bytes
        self.hits = self.misses = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path)
            self._file.execute(_PAGES)
            with self._file:
                self._file.execute(_TABLE)
                self._file.execute(_INDEX)
            (newest,) = self._file.execute("SELECT COALESCE(MAX(used), 0) FROM vectors").fetchone()
        except sqlite3.Error as error:
            raise DataError(f"{path}: is not a store of vectors; move it away") from error
        self._clock = int(newest)

    def close(self) -> None:
        self._file.close()

    def get(self, keys: Sequence[VectorKey]) -> list[Vector | None]:
        """The vector of each key, or None."""
        found = [self._find(key.digest) for key in keys]
        known = [key.digest for key, vector in zip(keys, found, strict=True) if vector is not None]
        self.hits += len(known)
        self.misses += len(keys) - len(known)
        self._clock += 1
        with self._file:
            rows = [(self._clock, key) for key in known]
            self._file.executemany("UPDATE vectors SET used = ? WHERE key = ?", rows)
        return found

    def put(self, keys: Sequence[VectorKey], vectors: Vector) -> None:
        """``vectors``: (keys, dim) float32. Then evicts what is beyond the bound."""
        self._clock += 1
        rows = [
            (key.digest, vector.astype("<f4").tobytes(), self._clock)
            for key, vector in zip(keys, vectors, strict=True)
        ]
        with self._file:
            self._file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            self._evict()

    @property
    def num_bytes(self) -> int:
        """Of all vectors and their keys."""
        query = "SELECT COALESCE(SUM(LENGTH(key) + LENGTH(vector)), 0) FROM vectors"
        return int(self._file.execute(query).fetchone()[0])

    @property
    def hit_rate(self) -> float:
        """Share of what was asked for that was there; NaN before the first question."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else float("nan")

    def _find(self, key: bytes) -> Vector | None:
        query = "SELECT vector FROM vectors WHERE key = ?"
        with closing(self._file.execute(query, (key,))) as found:
            row = found.fetchone()
        return None if row is None else np.frombuffer(row[0], dtype="<f4")

    def _evict(self) -> None:
        excess = self.num_bytes - self._max_bytes
        if excess <= 0:
            return
        query = "SELECT key, LENGTH(key) + LENGTH(vector) FROM vectors ORDER BY used, key"
        gone: list[tuple[bytes]] = []
        for key, size in self._file.execute(query):
            if excess <= 0:
                break
            gone.append((key,))
            excess -= size
        self._file.executemany("DELETE FROM vectors WHERE key = ?", gone)
