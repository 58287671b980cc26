from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import DataError, Interactions, Split, load_dataset, make_log
from training.logs import write_csv

LOG, ITEMS = "interactions.csv", "items.csv"
SPLITS = ("train",) * 6 + ("valid",) * 3 + ("test",) * 3
Rows = list[dict[str, Any]]


def good_rows() -> Rows:
    return [
        {
            "user_id": "ab"[place % 2],
            "item_id": f"i{place % 5}",
            "label": int(place % 3 == 0),
            "timestamp": 100 + place,
            "split": split,
        }
        for place, split in enumerate(SPLITS)
    ]


def good_items() -> Rows:
    return [{"item_id": f"i{place}", "title": f"T{place}"} for place in range(5)]


def folder_of(folder: Path, rows: Rows | None = None, items: Rows | None = None) -> Path:
    write_csv(folder / LOG, good_rows() if rows is None else rows)
    write_csv(folder / ITEMS, good_items() if items is None else items)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(folder)
    return str(caught.value)


def rows_of(log: Interactions) -> list[tuple[str, int, bool, float, int]]:
    names = (log.user_ids[code] for code in log.user)
    columns = (names, log.item.tolist(), log.liked.tolist(), log.time.tolist(), log.split.tolist())
    return list(zip(*columns, strict=True))


def test_a_good_log_is_read(tmp_path: Path) -> None:
    found = load_dataset(folder_of(tmp_path))
    expected = [
        (row["user_id"], int(row["item_id"][1:]), bool(row["label"]), float(row["timestamp"]),
         int(Split[row["split"].upper()]))
        for row in sorted(good_rows(), key=lambda row: row["user_id"])
    ]  # fmt: skip
    assert rows_of(found.log) == expected
    assert found.log.start.tolist() == [0, 6]
    assert found.warnings == ()
    assert found.catalogue.items[3].title == "T3"


@pytest.mark.parametrize(
    ("column", "name"),
    [("user_id", "user"), ("item_id", "item"), ("label", "rating"), ("timestamp", "time")],
)
def test_a_missing_column_of_the_log_is_named(tmp_path: Path, column: str, name: str) -> None:
    rows = [{k: v for k, v in row.items() if k != column} for row in good_rows()]
    said = refusal(folder_of(tmp_path, rows))
    assert LOG in said
    assert f"no column for {name}" in said
    assert "columns.json" in said


def test_a_missing_item_column_of_the_items_is_named(tmp_path: Path) -> None:
    said = refusal(folder_of(tmp_path, items=[{"title": "T"}]))
    assert ITEMS in said
    assert "no column for item" in said


def with_value(column: str, value: object, place: int = 7) -> Rows:
    rows = good_rows()
    rows[place][column] = value
    return rows


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("item_id", "nowhere", "items"),
        ("label", 2, "label"),
        ("label", 0.5, "label"),
        ("label", "yes", "label"),
        ("label", "", "label"),
        ("timestamp", "late", "timestamp"),
        ("timestamp", "inf", "timestamp"),
        ("timestamp", "nan", "timestamp"),
        ("timestamp", "", "timestamp"),
        ("user_id", None, "user_id"),
        ("split", "holdout", "holdout"),
        ("split", "TRAIN", "TRAIN"),
    ],
)
def test_a_bad_value_is_refused(tmp_path: Path, column: str, value: object, word: str) -> None:
    said = refusal(folder_of(tmp_path, with_value(column, value)))
    assert LOG in said
    assert word in said


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), None])
@pytest.mark.parametrize("column", ["timestamp", "label", "position"])
def test_a_number_that_is_not_finite_is_refused(
    tmp_path: Path, column: str, value: float | None
) -> None:
    rows = [row | {"position": float(n)} for n, row in enumerate(good_rows())]
    for row in rows:
        row[column] = float(row[column])
    rows[4][column] = value
    folder_of(tmp_path)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "interactions.parquet")
    said = refusal(tmp_path)
    assert "interactions.parquet" in said
    assert column in said


@pytest.mark.parametrize("value", ["good", "", "nan", "inf"])
def test_a_rating_that_is_no_number_is_refused(tmp_path: Path, value: str) -> None:
    rows = [{("rating" if k == "label" else k): v for k, v in row.items()} for row in good_rows()]
    rows[2]["rating"] = value
    said = refusal(folder_of(tmp_path, rows))
    assert LOG in said
    assert "rating" in said


def test_ratings_above_three_are_likes(tmp_path: Path) -> None:
    stars = [3, 3.5, 5, 1, 4, 2] * 2
    rows = [
        {k: v for k, v in row.items() if k != "label"} | {"stars": rating, "user_id": "a"}
        for row, rating in zip(good_rows(), stars, strict=True)
    ]
    log = load_dataset(folder_of(tmp_path, rows)).log
    assert log.liked.tolist() == [rating > 3 for rating in stars]


def test_how_many_rows_name_unknown_items_is_said(tmp_path: Path) -> None:
    rows = good_rows()
    rows[3]["item_id"] = rows[8]["item_id"] = "gone"
    said = refusal(folder_of(tmp_path, rows))
    assert "2 rows" in said
    assert "row 4" in said
    assert ITEMS in said
    assert "gone" not in said


def test_exact_duplicates_are_used_once_with_a_warning(tmp_path: Path) -> None:
    rows = good_rows()
    again = [*rows, rows[0], rows[7], rows[0], rows[1] | {"timestamp": 102}]
    found = load_dataset(folder_of(tmp_path, again))
    assert len(found.log) == len(rows) + 1
    assert len(found.warnings) == 1
    assert LOG in found.warnings[0]
    assert "3 duplicate rows" in found.warnings[0]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_split_of_one_class_is_refused(tmp_path: Path, split: str, label: int) -> None:
    rows = [row | ({"label": label} if row["split"] == split else {}) for row in good_rows()]
    said = refusal(folder_of(tmp_path, rows))
    assert LOG in said
    assert f"the {split} split has one class" in said


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_rows_is_refused(tmp_path: Path, split: str) -> None:
    rows = [row for row in good_rows() if row["split"] != split]
    assert f"the {split} split has no rows" in refusal(folder_of(tmp_path, rows))


def test_a_log_without_rows_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / LOG, [], header=list(good_rows()[0]))
    write_csv(tmp_path / ITEMS, good_items())
    assert refusal(tmp_path) == f"{LOG}: no rows"


def test_items_without_rows_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    write_csv(tmp_path / ITEMS, [], header=["item_id", "title"])
    assert refusal(tmp_path) == f"{ITEMS}: no rows"


def test_an_item_given_twice_is_refused(tmp_path: Path) -> None:
    said = refusal(folder_of(tmp_path, items=[*good_items(), {"item_id": "i1", "title": "again"}]))
    assert ITEMS in said
    assert "twice" in said


@pytest.mark.parametrize("name", [LOG, ITEMS])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (folder_of(tmp_path) / name).unlink()
    assert name in refusal(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")
    folder_of(tmp_path)
    assert "no such folder" in refusal(tmp_path / LOG)


BROKEN = [b"", b"garbage", b"PAR1", b"PAR1" + b"\0" * 64 + b"PAR1"]


@pytest.mark.parametrize("data", BROKEN, ids=repr)
@pytest.mark.parametrize("name", ["interactions.parquet", "items.parquet"])
def test_a_broken_parquet_is_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    (folder_of(tmp_path) / name).write_bytes(data)
    assert name in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"a,b\n1\n1,2,3\n", b"\xff\xfe\x00\x01"], ids=repr)
@pytest.mark.parametrize("name", [LOG, ITEMS])
def test_a_broken_csv_is_refused_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    (folder_of(tmp_path) / name).write_bytes(data)
    assert name in refusal(tmp_path)


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    write_csv(tmp_path / ITEMS, good_items(), header=["item_id", "item_id"])
    assert ITEMS in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not json", b"[]", b"3", b"null", b"\xff", b'"user"'])
def test_columns_json_must_be_an_object(tmp_path: Path, data: bytes) -> None:
    (folder_of(tmp_path) / "columns.json").write_bytes(data)
    assert "columns.json" in refusal(tmp_path)


def test_an_unknown_key_of_columns_json_is_named(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "columns.json").write_text(json.dumps({"usr": "user_id"}))
    assert "usr" in refusal(tmp_path)


@pytest.mark.parametrize("column", ["user", "label", "split", "position"])
def test_a_mapped_column_that_is_missing_is_named(tmp_path: Path, column: str) -> None:
    (folder_of(tmp_path) / "columns.json").write_text(json.dumps({column: "of-no-table"}))
    assert "of-no-table" in refusal(tmp_path)


def test_columns_are_found_by_their_given_names(tmp_path: Path) -> None:
    theirs = {"user": "wer", "item": "was", "label": "gut", "time": "wann", "split": "teil"}
    plain = ("user_id", "item_id", "label", "timestamp", "split")
    rows = [
        {new: row[old] for old, new in zip(plain, theirs.values(), strict=True)}
        for row in good_rows()
    ]
    items = [{"was": row["item_id"], "wie": row["title"]} for row in good_items()]
    folder_of(tmp_path, rows, items)
    (tmp_path / "columns.json").write_text(json.dumps(theirs | {"title": "wie"}))
    found = load_dataset(tmp_path)
    (tmp_path / "plain").mkdir()
    expected = load_dataset(folder_of(tmp_path / "plain"))
    assert rows_of(found.log) == rows_of(expected.log)
    assert found.catalogue.items == expected.catalogue.items


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
    items = [row | {"category": place % 2} for place, row in enumerate(good_items())]
    catalogue = load_dataset(folder_of(tmp_path, items=items)).catalogue
    assert catalogue.items[1].attributes == ("1",)


def test_a_title_with_odd_digits_has_no_year(tmp_path: Path) -> None:
    items = [row | {"title": "T (²²²²)"} for row in good_items()]
    item = load_dataset(folder_of(tmp_path, items=items)).catalogue.items[0]
    assert (item.title, item.year) == ("T (²²²²)", None)


@pytest.mark.parametrize("year", ["²²²²", "9" * 5000, "late", "-5"])
def test_a_year_that_is_none_is_left_out(tmp_path: Path, year: str) -> None:
    items = [row | {"year": year} for row in good_items()]
    assert load_dataset(folder_of(tmp_path, items=items)).catalogue.items[0].year is None


@pytest.mark.parametrize("name", [LOG, ITEMS])
def test_an_empty_id_is_refused_by_row(tmp_path: Path, name: str) -> None:
    rows, items = good_rows(), good_items()
    (rows if name == LOG else items)[2]["item_id"] = ""
    assert refusal(folder_of(tmp_path, rows, items)) == f"{name}: column item_id: row 3 is empty"


def test_ids_are_kept_as_they_are_written(tmp_path: Path) -> None:
    rows = [row | {"item_id": f"00{row['item_id'][1:]}"} for row in good_rows()]
    items = [row | {"item_id": f"00{row['item_id'][1:]}"} for row in good_items()]
    catalogue = load_dataset(folder_of(tmp_path, rows, items)).catalogue
    assert [item.item_id for item in catalogue.items] == [f"00{place}" for place in range(5)]


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
    place = table.column_names.index("timestamp")
    folder_of(tmp_path)
    parquet.write_table(
        table.set_column(place, "timestamp", column), tmp_path / "interactions.parquet"
    )
    found = np.sort(load_dataset(tmp_path).log.time)
    assert found.tolist() == [1_577_836_800.0 + n for n in range(12)]


def test_rows_are_ordered_by_position_within_a_user(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(12)
    rows = [
        row | {"user_id": "a", "timestamp": 7, "position": int(place)}
        for row, place in zip(good_rows(), order, strict=True)
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
    """All of the rows are user "a"'s; two of different splits change their times."""
    rows = good_rows()
    rows[one]["timestamp"], rows[other]["timestamp"] = 100 + other, 100 + one
    said = refusal(folder_of(tmp_path, rows))
    assert f"{LOG}: column split" in said
    assert "1 users" in said


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
    items = [{"item_id": f"i{place}", "title": ""} for place in range(12)]
    assert load_dataset(folder_of(tmp_path, rows, items)).log.item.tolist() == order


def test_without_a_split_the_log_is_parted_by_time() -> None:
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
