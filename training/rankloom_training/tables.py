"""Reads a folder's tables (Parquet, CSV, MovieLens' .dat) into columns under our names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

LOG_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "userId", "user", "uid"),
    "item": ("item_id", "itemId", "movieId", "movie_id", "item", "iid"),
    "label": ("label", "liked", "like"),
    "rating": ("rating", "stars", "score"),
    "time": ("timestamp", "time", "datetime"),
    "position": ("position", "order"),
    "split": ("split",),
}
ITEM_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "item": LOG_COLUMNS["item"],
    "title": ("title", "name"),
    "year": ("year",),
    "attributes": ("genres", "attributes", "categories", "genre", "category"),
    "description": ("description", "summary"),
}
# Read as text from CSV: item "007" is not item "7".
_TEXTS = ("user", "item", "split", "title", "attributes", "description")
_DAT_HEADERS = {
    "ratings.dat": ["user_id", "item_id", "rating", "timestamp"],
    "movies.dat": ["item_id", "title", "genres"],
}


class DataError(ValueError):
    """The data cannot be used for training. The message names the file and the column."""


class SourceTable:
    """One file's columns, by our names."""

    def __init__(
        self, path: Path, columns: Mapping[str, tuple[str, ...]], given: Mapping[str, str]
    ) -> None:
        """``columns``: our name → usual names. ``given``: our name → the only name to look for."""
        self.name = path.name
        self._usual = {ours: (given[ours],) if ours in given else columns[ours] for ours in columns}
        texts = [theirs for ours in _TEXTS for theirs in self._usual.get(ours, ())]
        self._table = _read(path, texts)
        for ours in columns:
            if ours in given and not self.has(ours):
                raise DataError(
                    f"{self.name}: no column {given[ours]}, which columns.json names for {ours}; "
                    f"correct columns.json"
                )

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def has(self, column: str) -> bool:
        """Whether the file has the column under one of its usual names."""
        return any(name in self._table.column_names for name in self._usual[column])

    def theirs(self, column: str) -> str:
        """The file's own name of the column. Raises DataError if the column is missing."""
        present = self._table.column_names
        found = next((name for name in self._usual[column] if name in present), None)
        if found is None:
            raise DataError(
                f"{self.name}: no column for {column} (looked for "
                f"{', '.join(self._usual[column])}); add it, or put its name into columns.json"
            )
        if present.count(found) > 1:
            raise DataError(f"{self.name}: column {found} occurs twice; rename or drop one")
        return found

    def strings(self, column: str) -> list[str]:
        """One text per row. Raises DataError if one is empty."""
        return [str(value) for value in self._filled(column)]

    def optional_strings(self, column: str) -> list[str]:
        """One text per row; empty if the file has none."""
        if not self.has(column):
            return [""] * len(self)
        return ["" if value is None else str(value) for value in self._values(column)]

    def lists(self, column: str) -> list[tuple[str, ...]]:
        """One list of labels per row; empty if the file has none."""
        if not self.has(column):
            return [()] * len(self)
        return [_labels(value) for value in self._values(column)]

    def numbers(self, column: str) -> NDArray[np.float64]:
        """(rows,) finite numbers."""
        return self._parsed(column, _number, "a number")

    def times(self, column: str) -> NDArray[np.float64]:
        """(rows,) seconds since 1970."""
        return self._parsed(column, _seconds, "a time, in seconds or as an ISO date")

    def _parsed(
        self, column: str, parse: Callable[[object], float], wanted: str
    ) -> NDArray[np.float64]:
        parsed = np.empty(len(self), dtype=np.float64)
        for row, value in enumerate(self._filled(column)):
            try:
                parsed[row] = parse(value)
            except (TypeError, ValueError, OverflowError) as error:
                where = f"{self.name}: column {self.theirs(column)}: row {row + 1}"
                raise DataError(f"{where} is not {wanted}") from error
        return parsed

    def _filled(self, column: str) -> list[object]:
        values = self._values(column)
        for row, value in enumerate(values, 1):
            if value is None or value == "":
                raise DataError(f"{self.name}: column {self.theirs(column)}: row {row} is empty")
        return values

    def _values(self, column: str) -> list[object]:
        name = self.theirs(column)
        try:
            values: list[object] = _in_microseconds(self._table.column(name)).to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise DataError(f"{self.name}: column {name} cannot be read") from error
        return values


def given_names(folder: Path) -> dict[str, str]:
    """The folder's ``columns.json``: our name → theirs. Empty if there is none."""
    path = folder / "columns.json"
    if not path.exists():
        return {}
    try:
        names = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path.name}: not valid JSON") from error
    if not isinstance(names, dict):
        raise DataError(f"{path.name}: not a JSON object; map our column names to yours")
    known = {**LOG_COLUMNS, **ITEM_COLUMNS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DataError(f"{path.name}: unknown keys {', '.join(unknown)}; use {', '.join(known)}")
    return {ours: str(theirs) for ours, theirs in names.items()}


def find_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that is in the folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; pass the folder that holds the log")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: no table found; add one of {', '.join(names)}")


def _read(path: Path, texts: Sequence[str]) -> pa.Table:
    try:
        match path.suffix:
            case ".parquet":
                return parquet.read_table(path)
            case ".csv":
                return _read_csv(path, texts)
            case _:
                return _read_dat(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path.name}: cannot be read as {path.suffix[1:]}") from error


def _read_csv(path: Path, texts: Sequence[str]) -> pa.Table:
    options = csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()))
    return csv.read_csv(path, convert_options=options)


def _read_dat(path: Path) -> pa.Table:
    """MovieLens' ``::``-separated text, Latin-1 as GroupLens ships it."""
    header = _DAT_HEADERS[path.name]
    rows = [line.split("::") for line in path.read_text(encoding="latin-1").splitlines() if line]
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"{path.name}: a line does not have {len(header)} fields")
    return pa.table(
        {name: pa.array([row[index] for row in rows]) for index, name in enumerate(header)}
    )


def _in_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Python's datetime has no nanoseconds, so timestamps are cut to microseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not np.isfinite(number):
        raise ValueError("not finite")
    return number


def _seconds(value: object) -> float:
    """Parses seconds, or an ISO date; without a time zone it is UTC."""
    try:
        return _number(value)
    except (TypeError, ValueError):
        moment = datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _labels(value: object) -> tuple[str, ...]:
    """Returns a list as it is; splits a text at `|`."""
    if value is None:
        return ()
    parts = value if isinstance(value, list) else str(value).split("|")
    return tuple(str(part) for part in parts if part and part != "(no genres listed)")
