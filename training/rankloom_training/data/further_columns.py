"""Columns of the item table that have no name of ours become numbers for the trees.

A column's kind is declared in ``columns.json`` or seen from its values: numbers stay, dates become
years with a fraction, and a category becomes a flag for each of its frequent values. Texts that
differ from item to item, and ids of other systems, are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankloom_features.item_columns import MAX_ITEM_COLUMNS, ItemColumns
from rankloom_training.data.arrow import compute as pc
from rankloom_training.data.columns import Column
from rankloom_training.data.errors import DataError
from rankloom_training.data.settings import SETTINGS_FILE, DataSettings
from rankloom_training.data.tables import SourceTable
from rankloom_training.data.times import YEAR_S, read_times

LEFT_OUT = "left out"  # how the kind of a column begins that is not used
MAX_VALUES = 20  # flags of one category: its most frequent values
MIN_ITEMS = 2  # a value of a single item would name the item
_MAX_SHARE = 0.5  # a category has fewer values than this share of the items
_NO_VALUE = pa.array(["", "na", "n/a", "nan", "null", "none", "-", "\\n"], pa.large_string())
_ID = re.compile(r"(^|[^a-zA-Z])ids?$|[a-z]I[dD]s?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class FurtherColumns:
    """``columns``: by the names that the trees see. ``kinds``: each column of the table that has
    no name of ours, and what it was read as or why it was not.
    """

    columns: ItemColumns
    kinds: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """``values``: (items,) float32 each. ``kind``: what they were read as."""

    kind: str
    values: dict[str, NDArray[np.float32]]


def read_further_columns(table: SourceTable, settings: DataSettings) -> FurtherColumns:
    """Raises DataError, which names the column, and the row that a declared kind does not fit."""
    missing = [name for name in settings.item_columns if name not in table.others]
    if missing:
        raise DataError(
            f"{table.name}: no further column {missing[0]}, which {SETTINGS_FILE} names in "
            f"item_columns; correct {SETTINGS_FILE}"
        )
    encoded = {name: _encoded(name, table, settings) for name in table.others}
    values = {name: value for one in encoded.values() for name, value in one.values.items()}
    if len(values) > MAX_ITEM_COLUMNS:
        raise DataError(
            f"{table.name}: {len(values)} item columns are more than {MAX_ITEM_COLUMNS}; name "
            f"those to use as a list item_columns in {SETTINGS_FILE}"
        )
    matrix = np.stack(list(values.values()), axis=1) if values else None
    columns = ItemColumns() if matrix is None else ItemColumns(tuple(values), matrix)
    return FurtherColumns(columns, tuple((name, one.kind) for name, one in encoded.items()))


def _encoded(name: str, table: SourceTable, settings: DataSettings) -> _Encoded:
    """A column that nobody declared is left out if it cannot be read."""
    try:
        return _encode(name, table.other(name), settings)
    except DataError as error:
        if name in settings.item_columns:
            raise
        fault = str(error).removeprefix(f"{table.name}: column {name}: ").partition(";")[0]
        return _Encoded(f"{LEFT_OUT}: {fault}", {})


def _encode(name: str, column: Column, settings: DataSettings) -> _Encoded:
    kind = settings.item_columns.get(name)
    if kind == "ignore" or (settings.only_those and name not in settings.item_columns):
        return _Encoded(f"{LEFT_OUT} by columns.json", {})
    column = _without_markers(column)
    known = ~column.missing()
    if not known.any():
        return _Encoded(f"{LEFT_OUT}: no values", {})
    if kind is None and name not in settings.item_columns and _ID.search(name):
        return _Encoded(f"{LEFT_OUT}: ids of another system", {})
    match kind or _kind_of(column, known):
        case "number":
            return _single(name, "number", _numbers(column, known))
        case "date":
            return _single(name, "date", _years(column, known))
        case _:
            return _flags(name, column, known, declared=kind is not None)


def _without_markers(column: Column) -> Column:
    """Texts such as NA become null."""
    if not column.is_text:
        return column
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(column.values))
    nothing = pc.is_in(plain, value_set=_NO_VALUE)
    return Column(column.where, pc.if_else(nothing, None, column.values))


def _kind_of(column: Column, known: NDArray[np.bool_]) -> str:
    kind = column.values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    if column.is_list:
        return "category"
    if np.isfinite(column.numbers()[known]).all():
        return "number"
    return "date" if column.is_text and _are_dates(column, known) else "category"


def _are_dates(column: Column, known: NDArray[np.bool_]) -> bool:
    try:
        read_times(_filled(column, known))
    except DataError:
        return False
    return True


def _filled(column: Column, known: NDArray[np.bool_]) -> Column:
    """Missing values are replaced, so that rows keep their numbers."""
    rows = np.where(known, np.arange(len(known)), int(known.argmax()))
    return Column(column.where, column.values.take(pa.array(rows)))


def _numbers(column: Column, known: NDArray[np.bool_]) -> NDArray[np.float32]:
    numbers = column.numbers()
    column.refuse_rows(
        known & np.isnan(numbers), "is not a number, as columns.json says; correct one of them"
    )
    beyond = np.abs(numbers) > np.finfo(np.float32).max
    column.refuse_rows(beyond, "is too large a number; leave it empty if it is not known")
    return numbers.astype(np.float32)


def _years(column: Column, known: NDArray[np.bool_]) -> NDArray[np.float32]:
    years = 1970.0 + read_times(_filled(column, known)).seconds / YEAR_S
    return np.where(known, years, np.nan).astype(np.float32)


def _single(name: str, kind: str, values: NDArray[np.float32]) -> _Encoded:
    known = values[~np.isnan(values)]
    if len(known) == len(values) and known.min() == known.max():
        return _Encoded(f"{LEFT_OUT}: one value only", {})
    missing = len(values) - len(known)
    return _Encoded(kind + (f", {missing:,} missing" if missing else ""), {name: values})


def _flags(name: str, column: Column, known: NDArray[np.bool_], *, declared: bool) -> _Encoded:
    """(items,) 0 or 1 for each frequent value; NaN for an item without any value."""
    lists = column.lists()
    counts = Counter(label for labels in lists for label in set(labels))
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    frequent = [label for label in ranked[:MAX_VALUES] if counts[label] >= MIN_ITEMS]
    if not frequent or (not declared and len(counts) > max(MAX_VALUES, _MAX_SHARE * known.sum())):
        return _Encoded(f"{LEFT_OUT}: texts that differ from item to item", {})
    values = {
        f"{name}={label}": np.where(known, [label in own for own in lists], np.nan)
        for label in frequent
    }
    kind = f"category, {len(frequent)} of {len(counts)} values"
    return _Encoded(kind, {name: flags.astype(np.float32) for name, flags in values.items()})
