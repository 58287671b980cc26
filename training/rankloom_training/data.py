"""Interaction logs of several shapes, read into one: checked, ordered and split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from rankloom_features.catalogue import Catalogue, Item

LIKE_ABOVE = 3.0  # ratings above this are likes, where the log has ratings and no labels
VALID_FROM, TEST_FROM = 0.70, 0.85  # share of the log before each split, where none is given

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "userId", "user", "uid"),
    "item": ("item_id", "itemId", "movieId", "movie_id", "item", "iid"),
    "label": ("label", "liked", "like"),
    "rating": ("rating", "stars", "score"),
    "time": ("timestamp", "time", "datetime"),
    "position": ("position", "order"),
    "split": ("split",),
    "title": ("title", "name"),
    "year": ("year",),
    "attributes": ("genres", "attributes", "categories", "genre", "category"),
    "description": ("description", "summary"),
}
_DAT_HEADERS = {
    "ratings.dat": ["user_id", "item_id", "rating", "timestamp"],
    "movies.dat": ["item_id", "title", "genres"],
}
_LOGS = ("interactions.parquet", "interactions.csv", "ratings.csv", "ratings.dat")
_ITEMS = ("items.parquet", "items.csv", "movies.csv", "movies.dat")


class DataError(ValueError):
    """The data cannot be learned from; the message names the file and the column."""


class Split(IntEnum):
    """Which part of the log a row belongs to."""

    TRAIN = 0
    VALID = 1
    TEST = 2


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Rows sorted by user, and by time within a user; arrays of one entry a row.

    ``user``: int64 codes, dense from 0. ``item``: int64 catalogue places. ``liked``:
    bool. ``time``: float64 seconds. ``split``: int8. ``start``: (users,) int64, each
    user's first row. ``user_ids``: the names behind the codes.
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
        """Number of users that have a row."""
        return len(self.user_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A catalogue, the log over it, and what the reader had to mend."""

    catalogue: Catalogue
    log: Interactions
    warnings: tuple[str, ...] = ()


def load_dataset(folder: Path) -> Dataset:
    """Reads a folder that holds a log and an item table.

    Known names: interactions.parquet|csv or ratings.csv|dat, and items.parquet|csv or
    movies.csv|dat. Columns are recognised by their usual names; ``columns.json`` in the
    folder, an object of our name → theirs, says otherwise. Raises DataError.
    """
    names = _column_config(folder)
    log_path, items_path = _find(folder, _LOGS), _find(folder, _ITEMS)
    catalogue = _read_items(_Table(items_path, names))
    log, warnings = _read_log(_Table(log_path, names), catalogue, items_path.name)
    return Dataset(catalogue, log, warnings)


def make_log(
    users: Sequence[str],
    item: NDArray[np.int64],
    liked: NDArray[np.bool_],
    time: NDArray[np.float64],
    order: NDArray[np.float64],
    split: NDArray[np.int8] | None = None,
) -> Interactions:
    """Sorts rows by user and ``order``; splits by time where ``split`` is None."""
    codes: dict[str, int] = {}
    user = np.array([codes.setdefault(name, len(codes)) for name in users], dtype=np.int64)
    split = _split_by_time(time) if split is None else split
    by = np.lexsort((order, user))
    start = np.searchsorted(user[by], np.arange(len(codes)))
    return Interactions(
        user[by], item[by], liked[by], time[by], split[by], start.astype(np.int64), tuple(codes)
    )


class _Table:
    """One file's columns, found by our names; errors name the file."""

    def __init__(self, path: Path, names: Mapping[str, str]) -> None:
        self.name = path.name
        self._names = names
        self._table = _read_table(path)

    def has(self, column: str) -> bool:
        return self._actual(column) is not None

    def strings(self, column: str) -> list[str]:
        return [str(value) for value in self._values(column)]

    def optional_strings(self, column: str) -> list[str]:
        if not self.has(column):
            return [""] * len(self)
        return ["" if value is None else str(value) for value in self._raw(column)]

    def numbers(self, column: str) -> NDArray[np.float64]:
        values = self._values(column)
        try:
            return np.array([_number(value) for value in values], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.name}: column {self._actual(column)}: not a number") from error

    def lists(self, column: str) -> list[tuple[str, ...]]:
        if not self.has(column):
            return [()] * len(self)
        return [_labels(value) for value in self._raw(column)]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def _values(self, column: str) -> list[object]:
        values = self._raw(column)
        for row, value in enumerate(values, 1):
            if value is None:
                raise DataError(f"{self.name}: column {self._actual(column)}: row {row} is empty")
        return values

    def _raw(self, column: str) -> list[object]:
        actual = self._actual(column)
        if actual is None:
            raise DataError(
                f"{self.name}: no column for {column} (looked for {', '.join(COLUMNS[column])}); "
                f"add it, or name yours in columns.json"
            )
        values: list[object] = self._table.column(actual).to_pylist()
        return values

    def _actual(self, column: str) -> str | None:
        if column in self._names:
            return self._names[column] if self._names[column] in self._table.column_names else None
        return next((n for n in COLUMNS[column] if n in self._table.column_names), None)


def _column_config(folder: Path) -> dict[str, str]:
    path = folder / "columns.json"
    if not path.exists():
        return {}
    try:
        names = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path.name}: not JSON") from error
    unknown = sorted(set(names) - set(COLUMNS)) if isinstance(names, dict) else ["(no object)"]
    if unknown:
        raise DataError(f"{path.name}: unknown keys {', '.join(unknown)}; known: {list(COLUMNS)}")
    return {key: str(value) for key, value in names.items()}


def _find(folder: Path, names: Sequence[str]) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; pass the folder that holds the log")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: holds none of {', '.join(names)}")


def _read_table(path: Path) -> pa.Table:
    readers: dict[str, Callable[[Path], pa.Table]] = {
        ".parquet": parquet.read_table,
        ".csv": csv.read_csv,
        ".dat": _read_dat,
    }
    try:
        return readers[path.suffix](path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path.name}: cannot be read as {path.suffix[1:]}") from error


def _read_dat(path: Path) -> pa.Table:
    """MovieLens' ``::``-separated text, Latin-1 as GroupLens ships it."""
    header = _DAT_HEADERS[path.name]
    rows = [line.split("::") for line in path.read_text(encoding="latin-1").splitlines() if line]
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a line has another number of fields")
    return pa.table(
        {name: pa.array([row[place] for row in rows]) for place, name in enumerate(header)}
    )


def _read_items(table: _Table) -> Catalogue:
    ids, titles = table.strings("item"), table.optional_strings("title")
    years = table.optional_strings("year")
    attributes, descriptions = table.lists("attributes"), table.optional_strings("description")
    if len(set(ids)) != len(ids):
        raise DataError(f"{table.name}: an item id stands twice; each item needs one row")
    if not ids:
        raise DataError(f"{table.name}: no rows")
    return Catalogue(
        _item(*row) for row in zip(ids, titles, years, attributes, descriptions, strict=True)
    )


def _item(
    item_id: str, title: str, year: str, attributes: tuple[str, ...], description: str
) -> Item:
    """MovieLens writes the year behind the title; it is taken from there where it stands."""
    digits = year.split(".")[0]
    if not digits and title.endswith(")") and title[-5:-1].isdigit() and title[-6:-5] == "(":
        title, digits = title[:-6].strip(), title[-5:-1]
    return Item(item_id, title, int(digits) if digits.isdigit() else None, attributes, description)


def _read_log(
    table: _Table, catalogue: Catalogue, items_name: str
) -> tuple[Interactions, tuple[str, ...]]:
    users, items, time = table.strings("user"), table.strings("item"), table.numbers("time")
    liked = _liked(table)
    if not len(table):
        raise DataError(f"{table.name}: no rows")
    place = np.array([catalogue.index(item) for item in items], dtype=np.int64)
    _refuse_unknown(table.name, items_name, place)
    order = table.numbers("position") if table.has("position") else time
    split = _given_split(table) if table.has("split") else _split_by_time(time)
    keep = _first_of_duplicates(users, place, time, order, liked)
    warnings = (
        () if keep.all() else (f"{table.name}: {int((~keep).sum())} duplicate rows are used once",)
    )
    kept_users = [user for user, kept in zip(users, keep, strict=True) if kept]
    log = make_log(kept_users, place[keep], liked[keep], time[keep], order[keep], split[keep])
    _refuse_one_class(table.name, log)
    return log, warnings


def _liked(table: _Table) -> NDArray[np.bool_]:
    if not table.has("label"):
        return table.numbers("rating") > LIKE_ABOVE
    values = table.numbers("label")
    if not np.isin(values, (0.0, 1.0)).all():
        raise DataError(f"{table.name}: column for label: holds values other than 0 and 1")
    return np.asarray(values == 1.0)


def _refuse_unknown(log_name: str, items_name: str, place: NDArray[np.int64]) -> None:
    unknown = np.flatnonzero(place < 0)
    if len(unknown):
        raise DataError(
            f"{log_name}: {len(unknown)} rows name items that {items_name} lacks "
            f"(the first is row {unknown[0] + 1}); add the items or drop the rows"
        )


def _refuse_one_class(name: str, log: Interactions) -> None:
    for split in Split:
        liked = log.liked[log.split == split]
        if not len(liked):
            raise DataError(f"{name}: the {split.name.lower()} split has no rows")
        if liked.all() or not liked.any():
            raise DataError(
                f"{name}: the {split.name.lower()} split has one class only; "
                f"both likes and dislikes are needed"
            )


def _given_split(table: _Table) -> NDArray[np.int8]:
    known = {split.name.lower(): int(split) for split in Split}
    names = table.strings("split")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DataError(f"{table.name}: column split: unknown values {', '.join(unknown[:5])}")
    return np.array([known[name] for name in names], dtype=np.int8)


def _split_by_time(time: NDArray[np.float64]) -> NDArray[np.int8]:
    valid, test = np.quantile(time, [VALID_FROM, TEST_FROM]) if len(time) else (0.0, 0.0)
    return ((time >= valid).astype(np.int8) + (time >= test).astype(np.int8)).astype(np.int8)


def _first_of_duplicates(users: Sequence[str], *columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """True for each row that is not an exact repeat of an earlier one."""
    seen: set[tuple[object, ...]] = set()
    keep = np.ones(len(users), dtype=np.bool_)
    for row, key in enumerate(zip(users, *(c.tolist() for c in columns), strict=True)):
        keep[row] = key not in seen
        seen.add(key)
    return keep


def _number(value: object) -> float:
    """A number, or a date as seconds."""
    stamp = getattr(value, "timestamp", None)
    number = float(stamp() if callable(stamp) else value)  # type: ignore[arg-type]
    if not np.isfinite(number):
        raise ValueError("not finite")
    return number


def _labels(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        parts = value.split("|")
        return tuple(part for part in parts if part and part != "(no genres listed)")
    return tuple(str(part) for part in value)  # type: ignore[attr-defined]
