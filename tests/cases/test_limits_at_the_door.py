"""What a server or the last stage would refuse is refused before the first stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rankloom_features.catalogue import Catalogue
from rankloom_features.wire import (
    MAX_ATTRIBUTE_CHARS,
    MAX_ATTRIBUTES,
    MAX_DESCRIPTION_CHARS,
    MAX_ID_CHARS,
    MAX_TITLE_CHARS,
    parse_candidate,
)
from rankloom_proto.v1 import features_pb2
from rankloom_training.data import DataError, load_dataset, make_log
from rankloom_training.data.checks import refuse_one_class
from rankloom_training.user_events import events_of_bundle, user_history, write_events
from training.small_log import ITEMS, LOG, folder_of, good_items, good_rows, refusal


@pytest.mark.parametrize(("column", "name"), [("user_id", LOG), ("item_id", ITEMS)])
def test_ids_that_no_request_may_have_are_refused(tmp_path: Path, column: str, name: str) -> None:
    long = "i4" + "x" * MAX_ID_CHARS
    rows = [row | {column: long} if n == 4 else row for n, row in enumerate(good_rows())]
    items = [row | {column: long} if row["item_id"] == "i4" else row for row in good_items()]
    message = refusal(folder_of(tmp_path, rows, items if column == "item_id" else None))
    assert message.startswith(f"{name}: column {column}: row 5 has more than {MAX_ID_CHARS} ")


def test_the_longest_ids_are_read(tmp_path: Path) -> None:
    rows = [row | {"user_id": row["user_id"] * MAX_ID_CHARS} for row in good_rows()]
    assert load_dataset(folder_of(tmp_path, rows)).log.num_users == 2


@pytest.mark.parametrize("time", ["0000-01-01", "10000-01-01", "-62135596801", "1e300"])
def test_times_that_an_event_cannot_have_are_refused(tmp_path: Path, time: str) -> None:
    rows = good_rows()
    for row in rows:
        row["timestamp"] = "2020-01-01" if "-" in time[1:] else 1e9
    rows[8]["timestamp"] = time
    message = refusal(folder_of(tmp_path, rows))
    assert message.startswith(f"{LOG}: column timestamp: ")
    assert "row " in message


def test_the_events_of_every_loaded_log_can_be_read_again(tmp_path: Path) -> None:
    rows = [
        row | {"timestamp": f"{1 + 909 * n:04}-01-01"} for n, row in enumerate(good_rows()[:11])
    ]
    rows.append(good_rows()[11] | {"timestamp": "9999-12-31T23:59:59"})
    dataset = load_dataset(folder_of(tmp_path, rows))
    write_events(dataset, tmp_path / "bundle")
    with events_of_bundle(tmp_path / "bundle") as store:
        for code, user in enumerate(dataset.log.user_ids):
            assert store.history(user).events == user_history(dataset, code)
    assert Catalogue.from_bytes(dataset.catalogue.to_bytes()).items == dataset.catalogue.items


def test_texts_are_cut_to_what_a_request_may_carry(tmp_path: Path) -> None:
    items = good_items()
    items[1] |= {"title": "T" * 5000}
    items[2] |= {"title": "t"}
    for row in items:
        row["description"] = "D" * 20_000
        row["genres"] = "|".join(f"{n}" + "G" * 200 for n in range(40))
    found = load_dataset(folder_of(tmp_path, items=items))
    for item in found.catalogue.items:
        text = features_pb2.ItemText(
            title=item.title, attributes=item.attributes, description=item.description
        )
        parse_candidate(features_pb2.Candidate(item_id=item.item_id, text=text), "candidate")
    title, labels, short, description = found.warnings
    assert title == (
        f"{ITEMS}: title is cut to {MAX_TITLE_CHARS:,} characters in 1 rows (first: row 2)"
    )
    assert f"{MAX_ATTRIBUTES} labels" in labels
    assert f"{MAX_ATTRIBUTE_CHARS} characters" in short
    assert f"{MAX_DESCRIPTION_CHARS:,} characters" in description


@pytest.mark.parametrize("rare", [2, 40])
def test_hardly_any_dislikes_to_calibrate_on_are_refused(rare: int) -> None:
    """A stage hours later fits probabilities to a sample of these rows."""
    num = 20_000
    split = np.repeat([0, 1, 2], num).astype(np.int8)
    liked = np.tile(np.arange(num) >= rare, 3)
    time = np.arange(3 * num, dtype=np.float64)
    log = make_log(["u"] * (3 * num), np.zeros(3 * num, np.int64), liked, time, time, split)
    if rare == 40:
        refuse_one_class("log", log)
    else:
        with pytest.raises(DataError, match="the valid split has 2 dislikes in 20,000 rows"):
            refuse_one_class("log", log)


def test_the_columns_of_parquet_that_nobody_declared_never_refuse(tmp_path: Path) -> None:
    folder_of(tmp_path)
    items = [row | {"blob": {"a": 1}, "raw": b"\xff", "huge": 1e300} for row in good_items()]
    parquet.write_table(pa.Table.from_pylist(items), tmp_path / "items.parquet")
    found = load_dataset(tmp_path)
    assert found.source is not None
    assert dict(found.source.items.further) == {
        "blob": "left out: cannot be read as text",
        "raw": "left out: cannot be read",
        "huge": "left out: row 1 is too large a number",
    }
