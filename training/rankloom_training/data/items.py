"""The item table becomes the catalogue, within the limits that a server has for text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankloom_features.catalogue import MAX_YEAR, Catalogue, Item
from rankloom_features.wire import (
    MAX_ATTRIBUTE_CHARS,
    MAX_ATTRIBUTES,
    MAX_DESCRIPTION_CHARS,
    MAX_ID_CHARS,
    MAX_TITLE_CHARS,
)
from rankloom_training.data.columns import Column, IdColumn
from rankloom_training.data.errors import DataError
from rankloom_training.data.tables import SourceTable


@dataclass(frozen=True, slots=True)
class ItemTexts:
    """The catalogue, and warnings about texts that were cut."""

    catalogue: Catalogue
    warnings: tuple[str, ...]


def read_items(table: SourceTable) -> ItemTexts:
    """Raises DataError for an empty table, and for ids that are missing, too long or repeated."""
    column = table.column("item")
    ids = read_ids(column)
    if not len(table):
        raise DataError(f"{table.name}: no rows; add an item for each id of the log")
    if len(ids.names) != len(table):
        repeated = np.ones(len(table), dtype=np.bool_)
        repeated[np.unique(ids.codes, return_index=True)[1]] = False
        column.refuse_rows(repeated, "repeats an id, so an item occurs twice; give it one row")
    cut = _Cut(table.name)
    items = zip(
        ids.names,
        cut.texts("title", table.texts("title"), MAX_TITLE_CHARS),
        _years(table),
        cut.lists("attributes", table.lists("attributes")),
        cut.texts("description", table.texts("description"), MAX_DESCRIPTION_CHARS),
        strict=True,
    )
    catalogue = Catalogue(_item(*row) for row in items)
    return ItemTexts(catalogue, (*drift_warnings(column, ids), *cut.warnings))


def read_ids(column: Column) -> IdColumn:
    """Ids that a request can name. Raises DataError, which names the row."""
    ids = column.ids()
    too_long = np.array([len(name) > MAX_ID_CHARS for name in ids.names], dtype=np.bool_)
    if too_long.any():
        column.refuse_rows(
            too_long[ids.codes],
            f"has more than {MAX_ID_CHARS} characters, which no request may have; shorten the ids",
        )
    return ids


def drift_warnings(column: Column, ids: IdColumn) -> tuple[str, ...]:
    return (f"{column.where}: floats such as 3.0 are read as 3",) if ids.drifted else ()


class _Cut:
    """Cuts texts to a server's limits, and says how many."""

    def __init__(self, table: str) -> None:
        self._table = table
        self.warnings: list[str] = []

    def texts(self, name: str, texts: list[str], most: int) -> list[str]:
        long = [row for row, text in enumerate(texts) if len(text) > most]
        self._warn(name, long, f"{most:,} characters")
        for row in long:
            texts[row] = texts[row][:most]
        return texts

    def lists(self, name: str, lists: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        many = [row for row, found in enumerate(lists) if len(found) > MAX_ATTRIBUTES]
        self._warn(name, many, f"{MAX_ATTRIBUTES} labels")
        for row in many:
            lists[row] = lists[row][:MAX_ATTRIBUTES]
        long = [
            row
            for row, found in enumerate(lists)
            if any(len(label) > MAX_ATTRIBUTE_CHARS for label in found)
        ]
        self._warn(name, long, f"labels of {MAX_ATTRIBUTE_CHARS} characters")
        for row in long:
            lists[row] = tuple(label[:MAX_ATTRIBUTE_CHARS] for label in lists[row])
        return lists

    def _warn(self, name: str, rows: list[int], limit: str) -> None:
        if rows:
            self.warnings.append(
                f"{self._table}: {name} is cut to {limit} in {len(rows):,} rows "
                f"(first: row {rows[0] + 1})"
            )


def _years(table: SourceTable) -> list[int | None]:
    if not table.has("year"):
        return [None] * len(table)
    numbers = np.floor(table.column("year").numbers())
    known = (numbers >= 0) & (numbers <= MAX_YEAR)
    return [int(year) if ok else None for year, ok in zip(numbers, known, strict=True)]


def _item(
    item_id: str, title: str, year: int | None, attributes: tuple[str, ...], description: str
) -> Item:
    """Without a year column, the year is taken from the title: MovieLens writes "Title (1999)"."""
    if year is None and title.endswith(")") and title[-6:-5] == "(" and title[-5:-1].isdecimal():
        title, year = title[:-6].strip(), int(title[-5:-1])
    return Item(item_id, title, year, attributes, description)
