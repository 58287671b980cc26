from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import Split, load_dataset
from training.logs import write_csv
from training.small_log import ITEMS, LOG, Rows, folder_of, good_items, good_rows, refusal, rows_of


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
    message = refusal(folder_of(tmp_path, rows))
    assert LOG in message
    assert f"no column for {name}" in message
    assert "columns.json" in message


def test_a_missing_item_column_of_the_items_is_named(tmp_path: Path) -> None:
    message = refusal(folder_of(tmp_path, items=[{"title": "T"}]))
    assert ITEMS in message
    assert "no column for item" in message


def with_value(column: str, value: object, index: int = 7) -> Rows:
    rows = good_rows()
    rows[index][column] = value
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
    message = refusal(folder_of(tmp_path, with_value(column, value)))
    assert LOG in message
    assert word in message


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
    message = refusal(tmp_path)
    assert "interactions.parquet" in message
    assert column in message


@pytest.mark.parametrize("value", ["good", "", "nan", "inf"])
def test_a_rating_that_is_not_a_number_is_refused(tmp_path: Path, value: str) -> None:
    rows = [{("rating" if k == "label" else k): v for k, v in row.items()} for row in good_rows()]
    rows[2]["rating"] = value
    message = refusal(folder_of(tmp_path, rows))
    assert LOG in message
    assert "rating" in message


def test_ratings_above_three_are_likes(tmp_path: Path) -> None:
    stars = [3, 3.5, 5, 1, 4, 2] * 2
    rows = [
        {k: v for k, v in row.items() if k != "label"} | {"stars": rating, "user_id": "a"}
        for row, rating in zip(good_rows(), stars, strict=True)
    ]
    log = load_dataset(folder_of(tmp_path, rows)).log
    assert log.liked.tolist() == [rating > 3 for rating in stars]


def test_rows_of_unknown_items_are_counted(tmp_path: Path) -> None:
    rows = good_rows()
    rows[3]["item_id"] = rows[8]["item_id"] = "gone"
    message = refusal(folder_of(tmp_path, rows))
    assert "2 rows" in message
    assert "row 4" in message
    assert ITEMS in message
    assert "gone" not in message


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
    message = refusal(folder_of(tmp_path, rows))
    assert LOG in message
    assert f"the {split} split has one class" in message


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_rows_is_refused(tmp_path: Path, split: str) -> None:
    rows = [row for row in good_rows() if row["split"] != split]
    assert f"the {split} split has no rows" in refusal(folder_of(tmp_path, rows))


def test_a_log_without_rows_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / LOG, [], header=list(good_rows()[0]))
    write_csv(tmp_path / ITEMS, good_items())
    assert refusal(tmp_path).startswith(f"{LOG}: no rows; ")


def test_items_without_rows_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    write_csv(tmp_path / ITEMS, [], header=["item_id", "title"])
    assert refusal(tmp_path).startswith(f"{ITEMS}: no rows; ")


def test_an_item_given_twice_is_refused(tmp_path: Path) -> None:
    message = refusal(
        folder_of(tmp_path, items=[*good_items(), {"item_id": "i1", "title": "again"}])
    )
    assert ITEMS in message
    assert "twice" in message


@pytest.mark.parametrize("name", [LOG, ITEMS])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (folder_of(tmp_path) / name).unlink()
    assert name in refusal(tmp_path)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")
    folder_of(tmp_path)
    assert "this is a file; pass the folder that holds the log" in refusal(tmp_path / LOG)


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
