"""Ids that became floats on the way: pandas does that to a column with one missing value."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import load_dataset
from training.small_log import LOG, folder_of, good_rows, refusal

NUMBERS = {"a": 3, "b": 12}


def with_users(folder: Path, users: list[object], *, parquet_file: bool) -> Path:
    rows = [row | {"user_id": user} for row, user in zip(good_rows(), users, strict=True)]
    folder_of(folder, rows)
    if parquet_file:
        (folder / LOG).unlink()
        parquet.write_table(pa.Table.from_pylist(rows), folder / "interactions.parquet")
    return folder


@pytest.mark.parametrize("parquet_file", [True, False])
def test_whole_floats_are_read_as_whole_numbers(tmp_path: Path, parquet_file: bool) -> None:
    users: list[object] = [float(NUMBERS[row["user_id"]]) for row in good_rows()]
    found = load_dataset(with_users(tmp_path, users, parquet_file=parquet_file))
    assert found.log.user_ids == ("3", "12")
    assert "column user_id: floats such as 3.0 are read as 3" in found.warnings[0]


@pytest.mark.parametrize("parquet_file", [True, False])
def test_a_missing_id_among_floats_is_refused(tmp_path: Path, parquet_file: bool) -> None:
    users: list[object] = [3.0, 12.0] * 6
    users[5] = None
    assert "row 6 is empty" in refusal(with_users(tmp_path, users, parquet_file=parquet_file))


def test_a_fraction_is_no_id(tmp_path: Path) -> None:
    users: list[object] = [*[3.0] * 11, 3.5]
    message = refusal(with_users(tmp_path, users, parquet_file=True))
    assert "column user_id: row 12 is a fraction" in message


@pytest.mark.parametrize("parquet_file", [True, False])
def test_ids_that_a_float_has_rounded_are_refused(tmp_path: Path, parquet_file: bool) -> None:
    users: list[object] = [*[3.0] * 6, *[1.2345678901234567e18] * 6]
    message = refusal(with_users(tmp_path, users, parquet_file=parquet_file))
    assert "column user_id: row 7" in message
    assert "write ids as texts or whole numbers" in message


def test_large_whole_numbers_are_exact(tmp_path: Path) -> None:
    users: list[object] = [2**60 + 1, 2**60 + 3] * 6
    found = load_dataset(with_users(tmp_path, users, parquet_file=True))
    assert found.log.user_ids == (str(2**60 + 1), str(2**60 + 3))


def test_texts_that_look_like_versions_keep_their_spelling(tmp_path: Path) -> None:
    users: list[object] = ["1.0", "1.10"] * 6
    assert load_dataset(with_users(tmp_path, users, parquet_file=False)).log.user_ids == (
        "1.0",
        "1.10",
    )
