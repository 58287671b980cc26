"""Columns of types that databases and data frames write."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import load_dataset
from training.small_log import LOG, folder_of, good_rows, refusal, rows_of

Change = Callable[[pa.Array], pa.Array]


def with_column(folder: Path, name: str, change: Change) -> Path:
    """The good log as Parquet, with one column of another type."""
    folder_of(folder)
    (folder / LOG).unlink()
    table = pa.Table.from_pylist(good_rows())
    column = change(table.column(name).combine_chunks())
    table = table.set_column(table.column_names.index(name), name, column)
    parquet.write_table(table, folder / "interactions.parquet")
    return folder


CHANGES: dict[str, tuple[str, Change]] = {
    "dictionary ids": ("user_id", lambda values: values.dictionary_encode()),
    "dictionary numbers": ("label", lambda values: values.dictionary_encode()),
    "decimal label": ("label", lambda values: values.cast(pa.decimal128(25, 2))),
    "decimal time": ("timestamp", lambda values: values.cast(pa.decimal128(25, 6))),
    "boolean label": ("label", lambda values: values.cast(pa.bool_())),
    "text label": (
        "label",
        lambda values: pa.array(["True" if value else "False" for value in values.to_pylist()]),
    ),
    "large text": ("item_id", lambda values: values.cast(pa.large_string())),
    "text view": ("item_id", lambda values: values.cast(pa.string_view())),
    "bytes": ("item_id", lambda values: values.cast(pa.binary())),
    "small integers": ("timestamp", lambda values: values.cast(pa.int16())),
    "floats": ("timestamp", lambda values: values.cast(pa.float32())),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_column_of_another_type_is_the_same_log(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").mkdir()
    expected = rows_of(load_dataset(folder_of(tmp_path / "plain")).log)
    assert rows_of(load_dataset(with_column(tmp_path, *CHANGES[name])).log) == expected


@pytest.mark.parametrize("name", ["user_id", "label", "timestamp"])
def test_a_column_of_nulls_is_refused_by_row(tmp_path: Path, name: str) -> None:
    message = refusal(with_column(tmp_path, name, lambda values: pa.nulls(len(values))))
    assert message.startswith(f"interactions.parquet: column {name}: row 1 is empty; ")


@pytest.mark.parametrize("name", ["user_id", "label", "timestamp"])
def test_a_column_of_structs_is_refused(tmp_path: Path, name: str) -> None:
    structs = with_column(tmp_path, name, lambda values: pa.array([{"a": 1}] * len(values)))
    assert refusal(structs).startswith(f"interactions.parquet: column {name}")


def test_decimal_ids_of_any_size_are_exact(tmp_path: Path) -> None:
    ids = {"a": Decimal("900719925474099312345"), "b": Decimal("900719925474099312346")}
    kind = pa.decimal128(38, 0)
    folder = with_column(
        tmp_path, "user_id", lambda names: pa.array([ids[n] for n in names.to_pylist()], kind)
    )
    assert load_dataset(folder).log.user_ids == tuple(map(str, ids.values()))
