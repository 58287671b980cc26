"""One log in many file formats is one log."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_training.data import load_dataset
from training.logs import write_csv
from training.small_log import (
    ITEMS,
    LOG,
    Rows,
    folder_of,
    good_items,
    good_rows,
    refusal,
    rows_of,
)

LogRows = list[tuple[str, int, bool, float, int]]


def write(folder: Path, name: str, rows: Rows) -> None:
    """Writes rows as the name says."""
    plain = name.removesuffix(".gz")
    if plain.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        mark = "\t" if plain.endswith(".tsv") else ","
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        text = "".join(mark.join(map(str, line)) + "\n" for line in lines)
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.fixture
def expected(tmp_path: Path) -> LogRows:
    (tmp_path / "plain").mkdir()
    return rows_of(load_dataset(folder_of(tmp_path / "plain")).log)


@pytest.mark.parametrize("suffix", ["csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz"])
def test_text_formats_are_read_alike(tmp_path: Path, expected: LogRows, suffix: str) -> None:
    write(tmp_path, f"interactions.{suffix}", good_rows())
    write(tmp_path, f"items.{suffix}", good_items())
    assert rows_of(load_dataset(tmp_path).log) == expected


@pytest.mark.parametrize("name", ["interactions", "interactions.parquet"])
def test_a_folder_of_parquet_files_is_one_table(
    tmp_path: Path, expected: LogRows, name: str
) -> None:
    folder_of(tmp_path)
    (tmp_path / LOG).unlink()
    for split in ("train", "valid", "test"):  # as Spark writes a partitioned table
        part = tmp_path / name / f"split={split}"
        part.mkdir(parents=True)
        rows = [row for row in good_rows() if row.pop("split") == split]
        parquet.write_table(pa.Table.from_pylist(rows), part / "part-0000.parquet")
    (tmp_path / name / "_SUCCESS").touch()
    assert sorted(rows_of(load_dataset(tmp_path).log)) == sorted(
        expected
    )  # users in the files' order


def test_a_changed_part_of_a_folder_is_another_log(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / LOG).rename(tmp_path / "old.csv")
    (tmp_path / "interactions").mkdir()
    part = tmp_path / "interactions" / "part-0.parquet"
    parquet.write_table(pa.Table.from_pylist(good_rows()), part)
    assert part in load_dataset(tmp_path).files


@pytest.mark.parametrize(
    ("users", "fault"),
    [
        (["c", "d"], "column user_id is string in interactions/b.parquet and int64 in "),
        ([1.5, 2.5], "column user_id is double in interactions/b.parquet and int64 in "),
        (None, "interactions/b.parquet cannot be read as Parquet"),
    ],
)
def test_a_part_that_does_not_fit_is_named(
    tmp_path: Path, users: list[object] | None, fault: str
) -> None:
    folder_of(tmp_path)
    (tmp_path / LOG).unlink()
    (tmp_path / "interactions").mkdir()
    for name, ids in (("a", [1, 2]), ("b", users)):
        part = tmp_path / "interactions" / f"{name}.parquet"
        if ids is None:
            part.write_bytes(b"broken")
        else:
            rows = [row | {"user_id": ids[n % 2]} for n, row in enumerate(good_rows())]
            parquet.write_table(pa.Table.from_pylist(rows), part)
    (tmp_path / "interactions" / "README.md").write_text("not a part")
    assert refusal(tmp_path).startswith(f"interactions: {fault}")


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.jsonl", "ratings.dat"])
@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_an_empty_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    folder_of(tmp_path)
    (tmp_path / LOG).unlink()
    (tmp_path / name).write_bytes(data)
    assert refusal(tmp_path) == f"{name}: is empty; write rows into it"


def test_a_file_without_a_header_is_told_so(tmp_path: Path) -> None:
    folder_of(tmp_path)
    lines = (tmp_path / LOG).read_text().splitlines()
    (tmp_path / LOG).write_text("\n".join(lines[1:]))
    message = refusal(tmp_path)
    assert message.startswith(f"{LOG}: no column for user (looked for user_id, ")
    assert "in the header" in message


def test_semicolons_may_separate_fields(tmp_path: Path, expected: LogRows) -> None:
    folder_of(tmp_path)
    (tmp_path / LOG).write_text((tmp_path / LOG).read_text().replace(",", ";"))
    found = load_dataset(tmp_path)
    assert rows_of(found.log) == expected
    assert found.source is not None
    assert found.source.log.how == "UTF-8, separated by semicolons"


def test_ids_and_dates_of_json_lines_stay_texts(tmp_path: Path) -> None:
    """Arrow alone reads such texts as times."""
    rows = [
        row | {"user_id": f"2020-01-0{1 + n % 2}", "timestamp": f"2020-03-{n + 1:02}"}
        for n, row in enumerate(good_rows())
    ]
    folder_of(tmp_path)
    (tmp_path / LOG).unlink()
    write(tmp_path, "interactions.jsonl", rows)
    found = load_dataset(tmp_path)
    assert found.log.user_ids == ("2020-01-01", "2020-01-02")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{broken", "row 13 is not JSON"),
        ("[1, 2]", "row 13 is not an object"),
        ("[" * 100_000, "row 13 is not JSON"),
        ('{"user_id": "\\ud800"}', "row 13 is not JSON, has a column twice or half a character"),
        ('{"user_id": "a", "user_id": "b"}', "row 13 is not JSON, has a column twice"),
        (json.dumps(good_rows()[0] | {"user_id": 7}), "column user_id: row 13 is a number"),
    ],
)
def test_a_wrong_json_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    folder_of(tmp_path)
    (tmp_path / LOG).unlink()
    write(tmp_path, "interactions.jsonl", good_rows())
    with (tmp_path / "interactions.jsonl").open("a") as file:
        file.write(line + "\n")
    assert refusal(tmp_path).startswith(f"interactions.jsonl: {fault}")


def test_a_file_that_another_hides_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path)
    write_csv(tmp_path / "ratings.csv", good_rows())
    write(tmp_path, "items.jsonl", good_items())
    warnings = load_dataset(tmp_path).warnings
    assert [warning.split(" is not read")[0] for warning in warnings] == [
        "ratings.csv",
        "items.jsonl",
    ]


def test_a_broken_gzip_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    packed = gzip.compress((tmp_path / ITEMS).read_bytes())
    (tmp_path / ITEMS).unlink()
    for data in (packed[:-12], b"plain", b""):
        (tmp_path / "items.csv.gz").write_bytes(data)
        assert refusal(tmp_path).startswith("items.csv.gz: ")
