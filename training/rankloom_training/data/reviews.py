"""Reads a log whose rows are reviews: a rating from 1 to 5, and a text."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue
from rankloom_training.data.checks import refuse_unknown
from rankloom_training.data.columns import Column
from rankloom_training.data.errors import DataError
from rankloom_training.data.files import ITEM_FILES, LOG_FILES, find_files
from rankloom_training.data.interactions import Split, first_of_duplicates, split_by_time
from rankloom_training.data.items import read_ids, read_items
from rankloom_training.data.settings import (
    ITEM_COLUMNS,
    REVIEW_COLUMNS,
    DataSettings,
    read_settings,
)
from rankloom_training.data.splits import given_split
from rankloom_training.data.tables import SourceTable
from rankloom_training.data.times import read_times

LOWEST, HIGHEST = 1.0, 5.0
MAX_TEXT_CHARS = 20_000  # of a review; Amazon's longest is about 40,000
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True, eq=False)
class Reviews:
    """Reviews in the order of their times. Arrays have one entry per row.

    ``user``: codes from 0, ``user_ids`` has the id of each. ``item``: index into the catalogue.
    ``time``: seconds. ``rating``: from 1 to 5. ``texts``: empty where the review has no word.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.float64]
    rating: NDArray[np.float64]
    split: NDArray[np.int8]
    texts: tuple[str, ...]
    user_ids: tuple[str, ...]
    catalogue: Catalogue
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.user)

    @property
    def has_text(self) -> NDArray[np.bool_]:
        """(rows,)"""
        return np.array([bool(text) for text in self.texts], dtype=np.bool_)

    def rows(self, split: Split) -> NDArray[np.int64]:
        """(n,) the rows of a split, the oldest first."""
        return np.flatnonzero(self.split == split)

    def digest(self) -> str:
        """SHA-256 of all that was read."""
        total = hashlib.sha256()
        for column in (self.user, self.item, self.time, self.rating, self.split):
            total.update(column.tobytes())
        total.update("\0".join((*self.user_ids, *self.texts)).encode())
        total.update(self.catalogue.to_bytes())
        return total.hexdigest()


def load_reviews(folder: Path) -> Reviews:
    """Reads a log with ``rating`` and ``text``, and an item table, in the forms of docs/data.md.

    Raises DataError, which names the file, the column and the row.
    """
    settings = read_settings(folder)
    items = SourceTable(find_files(folder, ITEM_FILES)[0], ITEM_COLUMNS, settings.names)
    table = SourceTable(find_files(folder, LOG_FILES)[0], REVIEW_COLUMNS, settings.names)
    catalogue = read_items(items)
    return _read(table, settings, catalogue.catalogue, items.name)


def _read(
    table: SourceTable, settings: DataSettings, catalogue: Catalogue, items_name: str
) -> Reviews:
    users, items = read_ids(table.column("user")), read_ids(table.column("item"))
    time = read_times(table.column("time")).seconds
    if not len(table):
        raise DataError(f"{table.name}: no rows; add some reviews")
    rating, known = _ratings(table.column("rating"), settings)
    item = np.array([catalogue.index(name) for name in items.names], dtype=np.int64)[items.codes]
    refuse_unknown(table.name, items_name, item)
    texts, warnings = _texts(table)
    order = table.column("position").finite_numbers() if table.has("position") else time
    digests = np.array([hash(text) for text in texts], dtype=np.int64)
    once = first_of_duplicates(users.codes, item, time, order, rating, digests)
    by = np.lexsort((order, time))
    by = by[(known & once)[by]]
    given = given_split(table)[by] if table.has("split") else split_by_time(time[by])
    read = Reviews(
        users.codes[by],
        item[by],
        time[by],
        rating[by],
        given,
        tuple(texts[row] for row in by.tolist()),
        users.names,
        catalogue,
        (*warnings, *_repeated(table.name, int((known & ~once).sum()))),
    )
    _refuse_empty(table.name, read)
    return read


def _ratings(
    column: Column, settings: DataSettings
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(rows,) each: ratings, and which of them say something."""
    rating = column.finite_numbers()
    known = rating != 0.0 if settings.zero_is_unknown else np.ones(len(rating), np.bool_)
    column.refuse_rows(
        known & (rating == 0.0),
        "is 0, which is no rating from 1 to 5; leave the row out, or put zero_is_unknown into "
        "columns.json if 0 means not rated",
    )
    outside = known & ((rating < LOWEST) | (rating > HIGHEST))
    column.refuse_rows(outside, "is not a rating from 1 to 5; correct it, or rescale the column")
    return rating, known


def _texts(table: SourceTable) -> tuple[list[str], tuple[str, ...]]:
    """Headline and text of each row, and warnings about those that are cut or say nothing."""
    body, headlines = table.column("text").texts(), table.texts("headline")
    both = [
        f"{head.strip()}\n{text.strip()}".strip()
        for head, text in zip(headlines, body, strict=True)
    ]
    long = [row for row, text in enumerate(both) if len(text) > MAX_TEXT_CHARS]
    bare = [row for row, text in enumerate(both) if not _WORD.search(text)]
    for row in long:
        both[row] = both[row][:MAX_TEXT_CHARS]
    for row in bare:
        both[row] = ""
    name = f"{table.name}: column {table.theirs('text')}"
    return both, (
        *_warning(name, long, f"reviews are cut to {MAX_TEXT_CHARS:,} characters"),
        *_warning(name, bare, "reviews have no word, so their ratings alone are used"),
    )


def _warning(name: str, rows: list[int], what: str) -> tuple[str, ...]:
    return (f"{name}: {len(rows):,} {what} (first: row {rows[0] + 1})",) if rows else ()


def _repeated(name: str, number: int) -> tuple[str, ...]:
    return (f"{name}: {number:,} duplicate rows are used once",) if number else ()


def _refuse_empty(name: str, reviews: Reviews) -> None:
    for split in Split:
        if not len(reviews.rows(split)):
            raise DataError(
                f"{name}: the {split.name.lower()} split has no rows; use a larger log, or another "
                f"split"
            )
    if not reviews.has_text[reviews.rows(Split.TRAIN)].any():
        raise DataError(f"{name}: no training row has a review; name its column text")
