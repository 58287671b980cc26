"""Reads an interaction log and its item table: checked, sorted and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.item_columns import ItemColumns
from rankloom_training.tables import ITEM_COLUMNS, LOG_COLUMNS, SourceTable, find_file, given_names
from rankloom_training.tables import DataError as DataError

LIKE_ABOVE = 3.0  # a rating above this is a like; used if the log has no labels
VALID_FROM, TEST_FROM = 0.70, 0.85  # share of the log before each split, if none is given
MAX_YEAR_DIGITS = 4
_LOGS = ("interactions.parquet", "interactions.csv", "ratings.csv", "ratings.dat")
_ITEMS = ("items.parquet", "items.csv", "movies.csv", "movies.dat")


class Split(IntEnum):
    """Which part of the log a row belongs to."""

    TRAIN = 0
    VALID = 1
    TEST = 2


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """The log, sorted by user and then by time. Arrays have one entry per row.

    Each user's rows are first training, then validation, then test rows.

    ``user``: codes from 0, without gaps. ``item``: index into the catalogue. ``time``:
    seconds. ``start``: (users,) each user's first row. ``user_ids``: the id of each code.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    liked: NDArray[np.bool_]
    time: NDArray[np.float64]
    split: NDArray[np.int8]
    start: NDArray[np.int64]
    user_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.user)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A catalogue, the log of its items, and warnings about rows that were dropped.

    ``item_columns``: further numbers of the items.
    """

    catalogue: Catalogue
    log: Interactions
    warnings: tuple[str, ...] = ()
    item_columns: ItemColumns = field(default_factory=ItemColumns)


def load_dataset(folder: Path) -> Dataset:
    """Reads a log and an item table from a folder.

    File names: interactions.parquet|csv or ratings.csv|dat, and items.parquet|csv or
    movies.csv|dat. Columns are found by their usual names. For other names, put a
    ``columns.json`` into the folder: an object of our name → yours. Raises DataError.
    """
    log_path, items_path = find_file(folder, _LOGS), find_file(folder, _ITEMS)
    names = given_names(folder)
    items, log_table = (
        SourceTable(items_path, ITEM_COLUMNS, names),
        SourceTable(log_path, LOG_COLUMNS, names),
    )
    catalogue = _read_items(items)
    log, warnings = _read_log(log_table, catalogue, items.name)
    return Dataset(catalogue, log, warnings)


def make_log(
    users: Sequence[str],
    item: NDArray[np.int64],
    liked: NDArray[np.bool_],
    time: NDArray[np.float64],
    order: NDArray[np.float64],
    split: NDArray[np.int8] | None = None,
) -> Interactions:
    """Sorts rows by user, time and ``order``. Splits by time if ``split`` is None."""
    codes: dict[str, int] = {}
    user = np.array([codes.setdefault(name, len(codes)) for name in users], dtype=np.int64)
    split = _split_by_time(time) if split is None else split
    by = np.lexsort((order, time, user))
    start = np.searchsorted(user[by], np.arange(len(codes)))
    return Interactions(
        user[by], item[by], liked[by], time[by], split[by], start.astype(np.int64), tuple(codes)
    )


def _read_items(table: SourceTable) -> Catalogue:
    ids, titles = table.strings("item"), table.optional_strings("title")
    years = table.optional_strings("year")
    attributes, descriptions = table.lists("attributes"), table.optional_strings("description")
    if len(set(ids)) != len(ids):
        raise DataError(f"{table.name}: an item id occurs twice; give each item one row")
    if not ids:
        raise DataError(f"{table.name}: no rows")
    return Catalogue(
        _item(*row) for row in zip(ids, titles, years, attributes, descriptions, strict=True)
    )


def _item(
    item_id: str, title: str, year: str, attributes: tuple[str, ...], description: str
) -> Item:
    """Without a year column, the year is taken from the title: MovieLens writes "Title (1999)"."""
    year = year.split(".")[0]
    if not year and title.endswith(")") and title[-6:-5] == "(" and title[-5:-1].isdecimal():
        title, year = title[:-6].strip(), title[-5:-1]
    known = year.isdecimal() and len(year) <= MAX_YEAR_DIGITS
    return Item(item_id, title, int(year) if known else None, attributes, description)


def _read_log(
    table: SourceTable, catalogue: Catalogue, items_name: str
) -> tuple[Interactions, tuple[str, ...]]:
    users, items, time = table.strings("user"), table.strings("item"), table.times("time")
    liked = _liked(table)
    if not len(table):
        raise DataError(f"{table.name}: no rows")
    index = np.array([catalogue.index(item) for item in items], dtype=np.int64)
    _refuse_unknown(table.name, items_name, index)
    order = table.numbers("position") if table.has("position") else time
    split = _given_split(table) if table.has("split") else _split_by_time(time)
    keep = _first_of_duplicates(users, index, time, order, liked)
    warnings = (
        () if keep.all() else (f"{table.name}: {int((~keep).sum())} duplicate rows are used once",)
    )
    kept_users = [user for user, kept in zip(users, keep, strict=True) if kept]
    log = make_log(kept_users, index[keep], liked[keep], time[keep], order[keep], split[keep])
    _refuse_one_class(table.name, log)
    if table.has("split"):
        _refuse_backwards(table, log)
    return log, warnings


def _liked(table: SourceTable) -> NDArray[np.bool_]:
    if not table.has("label"):
        return table.numbers("rating") > LIKE_ABOVE
    values = table.numbers("label")
    if not np.isin(values, (0.0, 1.0)).all():
        label = table.theirs("label")
        raise DataError(
            f"{table.name}: column {label} has values other than 0 and 1; "
            f"use 0 and 1, or name the column rating"
        )
    return np.asarray(values == 1.0)


def _refuse_unknown(log_name: str, items_name: str, index: NDArray[np.int64]) -> None:
    unknown = np.flatnonzero(index < 0)
    if len(unknown):
        raise DataError(
            f"{log_name}: {len(unknown)} rows name items that are not in {items_name} "
            f"(first: row {unknown[0] + 1}); add the items or drop the rows"
        )


def _refuse_one_class(name: str, log: Interactions) -> None:
    for split in Split:
        liked = log.liked[log.split == split]
        if not len(liked):
            raise DataError(
                f"{name}: the {split.name.lower()} split has no rows; "
                f"use a larger log, or another split"
            )
        if liked.all() or not liked.any():
            raise DataError(
                f"{name}: the {split.name.lower()} split has one class only; "
                f"give it both likes and dislikes"
            )


def _refuse_backwards(table: SourceTable, log: Interactions) -> None:
    """A row sees its user's earlier rows, so none of these may belong to a later split."""
    back = (np.diff(log.split) < 0) & (np.diff(log.user) == 0)
    if back.any():
        num_users = len(np.unique(log.user[1:][back]))
        raise DataError(
            f"{table.name}: column {table.theirs('split')}: contradicts the time order "
            f"of {num_users} users; order each user's rows as train, then valid, then test"
        )


def _given_split(table: SourceTable) -> NDArray[np.int8]:
    known = {split.name.lower(): int(split) for split in Split}
    names = table.strings("split")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DataError(
            f"{table.name}: column {table.theirs('split')}: unknown values "
            f"{', '.join(unknown[:5])}; use {', '.join(known)}"
        )
    return np.array([known[name] for name in names], dtype=np.int8)


def _split_by_time(time: NDArray[np.float64]) -> NDArray[np.int8]:
    valid, test = np.quantile(time, [VALID_FROM, TEST_FROM]) if len(time) else (0.0, 0.0)
    return ((time >= valid).astype(np.int8) + (time >= test).astype(np.int8)).astype(np.int8)


def _first_of_duplicates(users: Sequence[str], *columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(rows,) False for each exact repeat of an earlier row."""
    seen: set[tuple[object, ...]] = set()
    keep = np.ones(len(users), dtype=np.bool_)
    for row, key in enumerate(zip(users, *(c.tolist() for c in columns), strict=True)):
        keep[row] = key not in seen
        seen.add(key)
    return keep
