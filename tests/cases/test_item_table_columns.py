"""Numbers, categories and dates of the item table become item columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import load_dataset
from training.small_log import ITEMS, folder_of, good_items, refusal

PRICES = [9.5, None, 3, 0, 7.25]
STUDIOS = ["Ufa", "Ufa", "Toho", None, "Toho"]
DATES = ["1999-07-02", None, "2001-01-01", "2000-01-01", "2004-12-31"]


def items_of(**columns: list[Any]) -> list[dict[str, Any]]:
    return [
        row | {name: values[n] for name, values in columns.items()}
        for n, row in enumerate(good_items())
    ]


def read(folder: Path, **columns: list[Any]) -> dict[str, list[float]]:
    found = load_dataset(folder_of(folder, items=items_of(**columns))).item_columns
    return {name: found.values[:, n].tolist() for n, name in enumerate(found.names)}


def test_kinds_are_seen_from_the_values(tmp_path: Path) -> None:
    found = read(tmp_path, price=PRICES, studio=STUDIOS, released=DATES)
    nan = float("nan")
    np.testing.assert_array_equal(found["price"], [9.5, nan, 3, 0, 7.25])
    np.testing.assert_array_equal(found["studio=Toho"], [0, 0, 1, nan, 1])
    np.testing.assert_array_equal(found["studio=Ufa"], [1, 1, 0, nan, 0])
    np.testing.assert_allclose(found["released"], [1999.5, nan, 2001, 2000, 2005], atol=0.01)
    assert len(found) == 4


def test_parquet_types_are_read_alike(tmp_path: Path) -> None:
    rows = items_of(price=PRICES, studio=STUDIOS, released=DATES)
    folder_of(tmp_path, items=rows)
    expected = load_dataset(tmp_path).item_columns
    table = pa.Table.from_pylist(rows)
    dates = table.column("released").cast(pa.date32())
    table = table.set_column(table.column_names.index("released"), "released", dates)
    studios = table.column("studio").dictionary_encode()
    table = table.set_column(table.column_names.index("studio"), "studio", studios)
    parquet.write_table(table, tmp_path / "items.parquet")
    found = load_dataset(tmp_path).item_columns
    assert found.names == expected.names
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("marker", ["", "NA", "null", "\\N", "NaN", "-"])
def test_markers_of_missing_values_are_missing(tmp_path: Path, marker: str) -> None:
    found = read(tmp_path, price=[1, marker, 3, 4, 5], studio=["a", "a", marker, "b", "b"])
    assert np.isnan(found["price"][1])
    assert np.isnan(found["studio=a"][2])


def test_what_says_nothing_is_left_out_and_named(tmp_path: Path) -> None:
    rows = items_of(
        imdbId=[1, 2, 3, 4, 5],
        tagline=list("abcde"),
        source=["x"] * 5,
        one=[1] * 5,
        empty=[None] * 5,
    )
    found = load_dataset(folder_of(tmp_path, items=rows))
    assert found.source is not None
    kinds = dict(found.source.items.further)
    assert kinds == {
        "imdbId": "left out: ids of another system",
        "tagline": "left out: texts that differ from item to item",
        "source": "category, 1 of 1 values",
        "one": "left out: one value only",
        "empty": "left out: no values",
    }


def test_lists_are_categories_with_several_values(tmp_path: Path) -> None:
    found = read(tmp_path, cast=["Ann|Bob", "Bob", "Ann|Cy", "", "Cy"])
    np.testing.assert_array_equal(found["cast=Ann"], [1, 0, 1, np.nan, 0])


def test_a_category_has_a_bounded_number_of_flags(tmp_path: Path) -> None:
    items = [{"item_id": f"i{n}", "title": "", "studio": f"s{n % 50}"} for n in range(500)]
    found = load_dataset(folder_of(tmp_path, items=items)).item_columns
    assert len(found) == 20


def declared(folder: Path, item_columns: object, **columns: list[Any]) -> Path:
    (folder / "columns.json").write_text(json.dumps({"item_columns": item_columns}))
    return folder_of(folder, items=items_of(**columns))


def test_a_list_selects_and_an_object_declares(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "price": PRICES,
        "code": [1, 2, 1, 2, 1],
        "when": [20200101, 20210101, 20200101, 20210101, None],
    }
    chosen = load_dataset(declared(tmp_path, ["price"], **columns)).item_columns
    assert chosen.names == ("price",)
    kinds = {"code": "category", "when": "date", "price": "ignore"}
    found = load_dataset(declared(tmp_path, kinds, **columns)).item_columns
    assert found.names == ("code=1", "code=2", "when")
    np.testing.assert_allclose(found.values[:, 2], [2020, 2021, 2020, 2021, np.nan], atol=0.01)


def test_a_declared_kind_that_does_not_fit_is_refused_by_row(tmp_path: Path) -> None:
    folder = declared(tmp_path, {"studio": "number"}, studio=["1", "2", "x", "", "3"])
    assert refusal(folder).startswith(f"{ITEMS}: column studio: row 3 is not a number")
    folder = declared(tmp_path, {"studio": "date"}, studio=["2001-01-01", "", "", "soon", ""])
    assert refusal(folder).startswith(f"{ITEMS}: column studio: row 4 is not a time")


def test_a_declared_column_that_is_missing_is_named(tmp_path: Path) -> None:
    message = refusal(declared(tmp_path, ["pirce"], price=PRICES))
    assert message.startswith(f"{ITEMS}: no further column pirce, which columns.json names")


@pytest.mark.parametrize("value", [1e300, float("inf")])
def test_a_number_beyond_single_precision_is_no_value(tmp_path: Path, value: float) -> None:
    prices: list[Any] = [1, 2, value, 4, 5]
    folder = declared(tmp_path, {"price": "number"}, price=prices)
    assert refusal(folder).startswith(f"{ITEMS}: column price: row 3 is too large a number; ")
    (folder / "columns.json").unlink()
    found = load_dataset(folder)
    assert found.source is not None
    fault = "is too large a number" if value < float("inf") else "differ from item to item"
    assert dict(found.source.items.further)["price"].endswith(fault)
