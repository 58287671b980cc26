"""Rationales of reviews as a part of a bundle: one SQLite file, read where it lies.

A rationale is found by user and item. The file holds a digest of both and no user's id, and none of
it is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Final

from rankloom_features.bundled_tables import BundledTables, TableFormat, write_tables
from rankloom_features.events import SAME_TIME_S, Event

MAX_RATIONALE_CHARS: Final = 2_000
MAX_GENERATOR_CHARS: Final = 256
_KEY_BYTES: Final = 16
_FORMAT: Final = TableFormat(
    content="rationales",
    application=0x724C7261,  # "rLra"
    version=1,
    tables=(
        "CREATE TABLE rationales (key BLOB NOT NULL, reviewed REAL NOT NULL, "
        "written INTEGER NOT NULL, rating REAL NOT NULL, generator TEXT NOT NULL, "
        "text TEXT NOT NULL, PRIMARY KEY (key, reviewed)) STRICT, WITHOUT ROWID",
    ),
)
_FIND: Final = (
    f"SELECT substr(text, 1, {MAX_RATIONALE_CHARS}), rating, reviewed, written, "
    f"substr(generator, 1, {MAX_GENERATOR_CHARS}) "
    "FROM rationales WHERE key = ? ORDER BY reviewed DESC"
)
_UNIX_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
        """Raises TablesError."""
        self.digest, self._tables = digest, BundledTables(path, _FORMAT)

    def find(self, user_id: str, item_id: str) -> tuple[StoredRationale, ...]:
        """Of the user's reviews of the item, the newest review first.

        Raises UnreadableTablesError.
        """
        return tuple(
            StoredRationale(text, rating, reviewed, _from_us(written), generator)
            for text, rating, reviewed, written, generator in self._tables.rows(
                _FIND, _key_of(user_id, item_id)
            )
        )


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
    insert = "INSERT INTO rationales VALUES (?, ?, ?, ?, ?, ?)"
    write_tables(path, _FORMAT, {insert: (rows[key] for key in sorted(rows))})
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
