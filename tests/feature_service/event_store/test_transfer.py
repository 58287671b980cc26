"""Events from files into a store, and back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from feature_service.event_store.made import items_of, made
from rankloom_features.event_store import event_tables
from rankloom_features.event_store.event_tables import EventTableError
from rankloom_features.event_store.keys import partition_of
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.transfer import ExportCounts, export_events, import_events

_Rows = Mapping[str, Sequence[Any]]
ROWS: _Rows = {
    "user_id": ["u", "v", "u", "u", "v", "u"],
    "item_id": ["late", "x", "early", "twice", "x", "twice"],
    "liked": [1, 0, 0, 1, 1, 1],
    "time": [9.5, 1e9, -2.0, 3.0, 1e9, 3.0],
}


@pytest.fixture
def store(path: Path) -> Iterator[SqliteEventStore]:
    with closing(SqliteEventStore(path)) as store:
        yield store


def write(path: Path, rows: _Rows = ROWS) -> Path:
    table = pa.table(dict(rows))
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path


def imported(store: SqliteEventStore, file: Path) -> tuple[int, int]:
    counts = import_events(store, file, lambda *_: None)
    return counts.num_rows, counts.num_new


def exported(store: SqliteEventStore, file: Path) -> ExportCounts:
    return export_events(store, file, lambda *_: None)


def everything(store: SqliteEventStore) -> dict[str, object]:
    return {user: store.history(user).events for user in sorted(store.users())}


@pytest.mark.parametrize("name", ["events.parquet", "events.csv"])
def test_a_file_is_stored_once(store: SqliteEventStore, tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name)
    assert imported(store, file) == (6, 6)
    versions = [store.version(user) for user in "uv"]
    assert imported(store, file) == (6, 0)
    assert items_of(store, "u") == ["early", "twice", "twice", "late"]
    assert [event.liked for event in store.history("v").events] == [False, True]
    assert [store.version(user) for user in "uv"] == versions
    assert versions == [store.history(user).version for user in "uv"]


def test_both_kinds_of_file_give_the_same_events(store: SqliteEventStore, tmp_path: Path) -> None:
    assert imported(store, write(tmp_path / "events.parquet")) == (6, 6)
    assert imported(store, write(tmp_path / "events.csv")) == (6, 0)


def test_an_import_adds_to_what_users_do_meanwhile(store: SqliteEventStore, tmp_path: Path) -> None:
    [before] = store.append([made("live", "u", "live", time=4.0)])
    imported(store, write(tmp_path / "events.csv"))
    assert items_of(store, "u") == ["early", "twice", "twice", "live", "late"]
    assert store.version("u") == store.history("u").version > before
    [after] = store.append([made("later", "v", "later")])
    assert after > max(store.version("u"), before)


def test_given_event_ids_are_those_of_recorded_events(
    store: SqliteEventStore, tmp_path: Path
) -> None:
    store.append([made("a", "u"), made("b", "u")])
    file = write(
        tmp_path / "events.csv",
        {
            "event_id": ["a", "c"], "user_id": ["u", "u"], "item_id": ["i", "i"],
            "liked": [1, 1], "time": [1.0, 1.0],
        },
    )  # fmt: skip
    assert imported(store, file) == (2, 1)
    assert len(items_of(store)) == 3


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_what_is_exported_is_the_same_elsewhere(
    store: SqliteEventStore, tmp_path: Path, name: str
) -> None:
    store.append([made("a", "u", 'a "quoted", item\n', 1.1), made("b", "u", "é", 1.1)])
    imported(store, write(tmp_path / "events.csv"))
    counts = exported(store, tmp_path / name)
    assert counts == ExportCounts(8, 0)
    with closing(SqliteEventStore(tmp_path / "other.sqlite")) as other:
        assert imported(other, tmp_path / name) == (8, 8)
        assert everything(other) == everything(store)
        other.append([made("a", "u")])  # known by its event id, though the file has none
        assert len(items_of(other, "u")) == len(items_of(store, "u"))
        assert imported(other, tmp_path / "events.csv") == (6, 0)


def test_an_empty_store_is_exported(store: SqliteEventStore, tmp_path: Path) -> None:
    assert exported(store, tmp_path / "out.parquet") == ExportCounts(0, 0)
    assert pq.read_table(tmp_path / "out.parquet").column_names[:4] == list(event_tables.COLUMNS)


def test_a_large_file_is_stored_in_parts_and_in_order(
    store: SqliteEventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_tables, "BATCH_ROWS", 1_000)
    numbers = np.random.default_rng(3).integers(0, 500, 20_000)
    rows = {
        "user_id": numbers,
        "item_id": [f"i{row}" for row in range(len(numbers))],
        "liked": numbers % 2 == 0,
        "time": np.zeros(len(numbers), dtype=np.int64),  # equal: the file's order decides
    }
    steps: list[int] = []
    file = write(tmp_path / "e.parquet", rows)
    counts = import_events(store, file, lambda done, _: steps.append(done))
    assert (counts.num_rows, counts.num_new) == (20_000, 20_000)
    assert steps == sorted(steps)
    assert steps[-1] > 950  # of 1,000, less the last partitions, where they are empty
    assert len(set(steps)) > 100
    for user in random.Random(1).sample(range(500), 20):
        expected = [f"i{row}" for row in np.flatnonzero(numbers == user)]
        assert items_of(store, str(user)) == expected


def test_nothing_is_left_of_an_import_but_the_store(
    store: SqliteEventStore, tmp_path: Path
) -> None:
    imported(store, write(tmp_path / "events.csv"))
    exported(store, tmp_path / "out.csv")
    names = {file.name.partition("-")[0] for file in tmp_path.iterdir()}
    assert names == {"events.sqlite", "events.csv", "out.csv"}


def without(name: str) -> _Rows:
    return {column: values for column, values in ROWS.items() if column != name}


@pytest.mark.parametrize("name", ["e.parquet", "e.csv"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without("liked"), r"lacks the column liked; events have user_id, item_id, liked, time"),
        ({**ROWS, "time": [1.0, None, 2.0, 1.0, 1.0, 1.0]}, r"time, row 2: is not a number; wr"),
        ({**ROWS, "time": [1.0, 1.0, 1.5e12, 1.0, 1.0, 1.0]}, r"row 3: is not in the years 1 to"),
        ({**ROWS, "liked": [1, 1, 1, 1, 1, 4]}, r"column liked, row 6: is neither 0 nor 1; a ra"),
        ({**ROWS, "user_id": ["u", "", "u", "u", "u", "u"]}, r"user_id, row 2: is empty; fill"),
        ({**ROWS, "item_id": ["i" * 257, *"abcde"]}, r"item_id, row 1: is longer than 256 chara"),
    ],
)
def test_wrong_rows_are_named_and_nothing_is_stored(
    store: SqliteEventStore, tmp_path: Path, name: str, rows: _Rows, message: str
) -> None:
    with pytest.raises(EventTableError, match=message) as caught:
        imported(store, write(tmp_path / name, rows))
    assert name in str(caught.value)
    assert store.statistics().num_events == 0


@pytest.mark.parametrize("name", ["e.parquet", "e.csv"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00nothing", b"user_id,item_id,liked,time\n1\n"]
)
def test_another_file_is_refused(
    store: SqliteEventStore, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EventTableError, match=rf"{name}: (is not a whole|lacks the column)"):
        imported(store, tmp_path / name)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", [1.5], "write ids as texts or whole numbers"),
        ("time", pa.array([1], pa.timestamp("s")), "write seconds since 1970 as numbers"),
        ("liked", [["yes"]], "write 0 or 1"),
    ],
)
def test_columns_of_another_type_are_refused(
    store: SqliteEventStore, tmp_path: Path, column: str, values: Sequence[Any], message: str
) -> None:
    rows = {name: values[:1] for name, values in ROWS.items()}
    file = write(tmp_path / "e.parquet", {**rows, column: values})
    with pytest.raises(EventTableError, match=f"column {column} holds .*{message}"):
        imported(store, file)


def test_a_damaged_store_gives_what_can_still_be_read(
    store: SqliteEventStore, path: Path, tmp_path: Path
) -> None:
    users = [f"u{number}" for number in range(100)]
    store.append([made("a", user) for user in users])
    query = f"SELECT rootpage FROM sqlite_schema WHERE name = 'events_{partition_of('u7')}'"
    [page] = store._writer.execute(query).fetchone()
    store.close()
    with path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 4096)
    with closing(SqliteEventStore(path)) as damaged:
        counts = exported(damaged, tmp_path / "rest.csv")
    readable = [user for user in users if partition_of(user) != partition_of("u7")]
    assert counts == ExportCounts(len(readable), 1)
    with closing(SqliteEventStore(tmp_path / "new.sqlite")) as new:
        assert imported(new, tmp_path / "rest.csv") == (len(readable), len(readable))
        assert set(new.users()) == set(readable)
