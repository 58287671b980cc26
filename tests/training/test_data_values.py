"""How values are read from a log's files, whatever types the files use."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import Split, load_dataset, make_log
from training.small_log import (
    ITEMS,
    LOG,
    SPLITS,
    folder_of,
    good_items,
    good_rows,
    refusal,
    rows_of,
)


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    expected = load_dataset(folder_of(tmp_path))
    items = [row | {"genres": ["Drama", "War"]} for row in good_items()]
    parquet.write_table(pa.Table.from_pylist(good_rows()), tmp_path / "interactions.parquet")
    parquet.write_table(pa.Table.from_pylist(items), tmp_path / "items.parquet")
    (tmp_path / LOG).unlink()
    (tmp_path / ITEMS).unlink()
    found = load_dataset(tmp_path)
    assert rows_of(found.log) == rows_of(expected.log)
    assert found.catalogue.items[0].attributes == ("Drama", "War")


def test_the_text_of_items_is_read(tmp_path: Path) -> None:
    items = [
        row | {"year": year, "categories": "War|Drama", "summary": "Short."}
        for row, year in zip(good_items(), [1999, "", 2001, 0, 1970], strict=True)
    ]
    first, second = load_dataset(folder_of(tmp_path, items=items)).catalogue.items[:2]
    assert (first.year, first.attributes, first.description) == (1999, ("War", "Drama"), "Short.")
    assert second.year is None


def test_a_category_of_numbers_does_not_end_in_a_traceback(tmp_path: Path) -> None:
    items = [row | {"category": index % 2} for index, row in enumerate(good_items())]
    catalogue = load_dataset(folder_of(tmp_path, items=items)).catalogue
    assert catalogue.items[1].attributes == ("1",)


def test_a_title_with_odd_digits_has_no_year(tmp_path: Path) -> None:
    items = [row | {"title": "T (²²²²)"} for row in good_items()]
    item = load_dataset(folder_of(tmp_path, items=items)).catalogue.items[0]
    assert (item.title, item.year) == ("T (²²²²)", None)


@pytest.mark.parametrize("year", ["²²²²", "9" * 5000, "late", "-5"])
def test_an_invalid_year_is_left_out(tmp_path: Path, year: str) -> None:
    items = [row | {"year": year} for row in good_items()]
    assert load_dataset(folder_of(tmp_path, items=items)).catalogue.items[0].year is None


@pytest.mark.parametrize("name", [LOG, ITEMS])
def test_an_empty_id_is_refused_by_row(tmp_path: Path, name: str) -> None:
    rows, items = good_rows(), good_items()
    (rows if name == LOG else items)[2]["item_id"] = ""
    assert refusal(folder_of(tmp_path, rows, items)).startswith(
        f"{name}: column item_id: row 3 is empty; "
    )


def test_ids_are_kept_as_they_are_written(tmp_path: Path) -> None:
    rows = [row | {"item_id": f"00{row['item_id'][1:]}"} for row in good_rows()]
    items = [row | {"item_id": f"00{row['item_id'][1:]}"} for row in good_items()]
    catalogue = load_dataset(folder_of(tmp_path, rows, items)).catalogue
    assert [item.item_id for item in catalogue.items] == [f"00{index}" for index in range(5)]


def test_ids_match_whatever_types_the_files_give_them(tmp_path: Path) -> None:
    rows = [row | {"item_id": f"0{row['item_id'][1:]}"} for row in good_rows()]
    items = [row | {"item_id": f"0{row['item_id'][1:]}"} for row in good_items()]
    items.append({"item_id": "special", "title": "S"})
    assert len(load_dataset(folder_of(tmp_path, rows, items)).log) == len(rows)


@pytest.mark.parametrize("form", ["2020-01-{:02d}", "2020-01-{:02d} 00:00:00"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_dates_are_seconds_utc_wherever_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, zone: str
) -> None:
    rows = [row | {"timestamp": form.format(n + 1)} for n, row in enumerate(good_rows())]
    folder_of(tmp_path, rows)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = np.sort(load_dataset(tmp_path).log.time)
    time.tzset()
    assert found.tolist() == [1_577_836_800.0 + 86_400 * n for n in range(len(rows))]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("us", "Asia/Tokyo"), pa.string()]
)
def test_times_of_parquet_are_seconds_utc(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.Table.from_pylist(good_rows())
    moments = pa.array([1_577_836_800_000_000_001 + 10**9 * n for n in range(12)])
    column = moments.cast(pa.timestamp("ns")).cast(kind, safe=False)
    index = table.column_names.index("timestamp")
    folder_of(tmp_path)
    parquet.write_table(
        table.set_column(index, "timestamp", column), tmp_path / "interactions.parquet"
    )
    found = np.sort(load_dataset(tmp_path).log.time)
    assert found.tolist() == [1_577_836_800.0 + n for n in range(12)]


def test_rows_are_ordered_by_position_within_a_user(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(12)
    rows = [
        row | {"user_id": "a", "timestamp": 7, "position": int(index)}
        for row, index in zip(good_rows(), order, strict=True)
    ]
    by_position = sorted(rows, key=lambda row: row["position"])
    for row, split in zip(by_position, SPLITS, strict=True):
        row["split"] = split
    for row, label in zip(by_position, [0, 1] * 6, strict=True):
        row["label"] = label
    log = load_dataset(folder_of(tmp_path, rows)).log
    assert log.item.tolist() == [int(row["item_id"][1:]) for row in by_position]


@pytest.mark.parametrize(("one", "other"), [(0, 6), (0, 10), (6, 10)])
def test_a_split_that_contradicts_time_is_refused(tmp_path: Path, one: int, other: int) -> None:
    """Two rows of one user but of different splits swap their times."""
    rows = good_rows()
    rows[one]["timestamp"], rows[other]["timestamp"] = 100 + other, 100 + one
    message = refusal(folder_of(tmp_path, rows))
    assert f"{LOG}: column split" in message
    assert "1 users" in message


def test_time_goes_before_position(tmp_path: Path) -> None:
    rows = [row | {"position": 100 - n} for n, row in enumerate(good_rows())]
    expected = load_dataset(folder_of(tmp_path)).log
    assert rows_of(load_dataset(folder_of(tmp_path, rows)).log) == rows_of(expected)


def test_a_position_that_contradicts_the_split_is_refused(tmp_path: Path) -> None:
    rows = [row | {"timestamp": 7, "position": 100 - n} for n, row in enumerate(good_rows())]
    assert f"{LOG}: column split" in refusal(folder_of(tmp_path, rows))


def test_rows_of_one_time_keep_the_files_order(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(12).tolist()
    rows = [
        row | {"user_id": "a", "timestamp": 7, "item_id": f"i{item}"}
        for row, item in zip(good_rows(), order, strict=True)
    ]
    items = [{"item_id": f"i{index}", "title": ""} for index in range(12)]
    assert load_dataset(folder_of(tmp_path, rows, items)).log.item.tolist() == order


def test_without_a_split_the_log_is_split_by_time() -> None:
    random = np.random.default_rng(1)
    num = 1000
    time = random.permutation(num).astype(np.float64)
    users = [f"u{code}" for code in random.integers(0, 9, num)]
    log = make_log(users, np.zeros(num, np.int64), np.ones(num, np.bool_), time, time)
    assert np.bincount(log.split).tolist() == [700, 150, 150]
    for earlier, later in ((Split.TRAIN, Split.VALID), (Split.VALID, Split.TEST)):
        assert log.time[log.split == earlier].max() < log.time[log.split == later].min()
    for user, start in enumerate(log.start):
        own = np.flatnonzero(log.user == user)
        assert own.tolist() == list(range(start, start + len(own)))
        assert (np.diff(log.time[own]) > 0).all()
        assert (np.diff(log.split[own]) >= 0).all()
