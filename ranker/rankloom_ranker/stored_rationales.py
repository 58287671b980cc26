"""Rationales of reviews as a part of a bundle: one SQLite file, read where it lies.

A rationale is found by user and item. The file holds a digest of both and no user's id, and none of
it is kept in memory.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Final

from rankloom_features.events import Event

MAX_RATIONALE_CHARS: Final = 2_000
MAX_GENERATOR_CHARS: Final = 256
FORMAT: Final = 1
SAME_TIME_S: Final = 1e-3  # times cross the wire as nanoseconds and are floats of seconds here
_KEY_BYTES: Final = 16
_APPLICATION: Final = 0x724C7261  # "rLra"
_TABLE: Final = (
    "CREATE TABLE rationales (key BLOB NOT NULL, reviewed REAL NOT NULL, written INTEGER NOT NULL, "
    "rating REAL NOT NULL, generator TEXT NOT NULL, text TEXT NOT NULL, "
    "PRIMARY KEY (key, reviewed)) STRICT, WITHOUT ROWID"
)
_FIND: Final = (
    f"SELECT substr(text, 1, {MAX_RATIONALE_CHARS}), rating, reviewed, written, "
    f"substr(generator, 1, {MAX_GENERATOR_CHARS}) "
    "FROM rationales WHERE key = ? ORDER BY reviewed DESC"
)
_UNIX_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RationalesError(ValueError):
    """The file does not hold rationales in this format."""


class UnreadableRationalesError(Exception):
    """The file can no longer be read."""


@dataclass(frozen=True, slots=True)
class StoredRationale:
    """Why a user rated an item as they did, as it was written beforehand.

    ``rating``: from 1 to 5, what the review seems to give. ``reviewed``: time of the review, in
    seconds since 1970 UTC. ``written``: when it was written, UTC. ``generator``: by what.
    """

    text: str
    rating: float
    reviewed: float
    written: datetime
    generator: str


@dataclass(frozen=True, slots=True)
class UserRationale:
    """A rationale, and whose review of which item it is about."""

    user_id: str
    item_id: str
    rationale: StoredRationale


class StoredRationales:
    """The rationales of one bundle. Safe from several threads; each lookup may block on the disk.

    ``digest``: SHA-256 of the file, in hexadecimal. The file must not change while it is open.
    """

    def __init__(self, path: Path, digest: str) -> None:
        """Raises RationalesError."""
        self.digest = digest
        self._lock = Lock()
        self._file = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        weakref.finalize(self, self._file.close)
        try:
            _check_format(self._file)
        except sqlite3.Error as error:
            raise RationalesError(f"is not a file of rationales: {error}") from error

    def find(self, user_id: str, item_id: str) -> tuple[StoredRationale, ...]:
        """Of the user's reviews of the item, the newest review first.

        Raises UnreadableRationalesError.
        """
        key = _key_of(user_id, item_id)
        try:
            with self._lock, closing(self._file.execute(_FIND, (key,))) as rows:
                return tuple(
                    StoredRationale(text, rating, reviewed, _from_us(written), generator)
                    for text, rating, reviewed, written, generator in rows
                )
        except sqlite3.Error as error:
            advice = "check the disk, and stage the bundle again"
            raise UnreadableRationalesError(
                f"the bundle's rationales cannot be read: {error}; {advice}"
            ) from error


def newest_of_history(
    written: Sequence[StoredRationale], item_id: str, events: Sequence[Event]
) -> StoredRationale | None:
    """The first rationale whose review is among the events: of that item, at that time."""
    times = [event.time for event in events if event.item_id == item_id and event.time is not None]
    return next(
        (one for one in written if any(abs(one.reviewed - t) < SAME_TIME_S for t in times)), None
    )


def write_rationale_part(path: Path, rationales: Iterable[UserRationale]) -> int:
    """Writes the file, in which equal rationales give equal bytes; returns their number.

    Texts become plain: one line of printable characters, cut after MAX_RATIONALE_CHARS; what is
    then empty is left out. Of two rationales of one review the later one stays.
    """
    rows = {row[:2]: row for row in map(_row_of, rationales) if row[-1]}
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA synchronous=OFF")  # a file that was cut short is written anew
        file.execute(f"PRAGMA application_id={_APPLICATION}")
        file.execute(f"PRAGMA user_version={FORMAT}")
        file.execute(_TABLE)
        # In the order of the keys, so that pages are full.
        insert = "INSERT INTO rationales VALUES (?, ?, ?, ?, ?, ?)"
        file.executemany(insert, (rows[key] for key in sorted(rows)))
    return len(rows)


def _row_of(given: UserRationale) -> tuple[bytes, float, int, float, str, str]:
    rationale = given.rationale
    written = (rationale.written - _UNIX_START) // timedelta(microseconds=1)
    generator = _plain(rationale.generator, MAX_GENERATOR_CHARS)
    text = _plain(rationale.text, MAX_RATIONALE_CHARS)
    key = _key_of(given.user_id, given.item_id)
    return key, rationale.reviewed, written, rationale.rating, generator, text


def _key_of(user_id: str, item_id: str) -> bytes:
    """Two pairs of ids share a key with a probability of 2^−128."""
    user = user_id.encode()
    both = len(user).to_bytes(8, "big") + user + item_id.encode()
    return blake2b(both, digest_size=_KEY_BYTES).digest()


def _plain(text: str, max_chars: int) -> str:
    """On one line, and without characters that control a terminal or a direction of writing."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:max_chars].rstrip()


def _from_us(number: int) -> datetime:
    return _UNIX_START + timedelta(microseconds=number)


def _check_format(file: sqlite3.Connection) -> None:
    """Raises RationalesError. Nothing but the one table may be in the file: views and triggers
    would be run.
    """
    file.execute("PRAGMA trusted_schema=OFF")
    [application] = file.execute("PRAGMA application_id").fetchone()
    [found] = file.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise RationalesError("is not a file of rationales")
    if found != FORMAT:
        raise RationalesError(f"format {found}, this version reads format {FORMAT}")
    if file.execute("SELECT sql FROM sqlite_schema").fetchall() != [(_TABLE,)]:
        raise RationalesError("holds other tables than a file of rationales does")
