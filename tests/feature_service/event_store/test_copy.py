"""A copy of a store has the events of one moment, and then goes its own way."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from feature_service.event_store.made import made
from rankloom_features.event_store.sqlite import SqliteEventStore, copy_events
from rankloom_features.event_store.store import EventStoreError


def test_a_store_in_use_is_copied(path: Path, tmp_path: Path) -> None:
    with closing(SqliteEventStore(path)) as store:
        store.append([made("a"), made("b", time=2.0)])
        copy_events(path, tmp_path / "copy")
        store.append([made("c", time=3.0)])
        with closing(SqliteEventStore(tmp_path / "copy")) as copy:
            assert copy.history("u").events == store.history("u").events[:2]
            assert copy.version("u") < copy.append([made("d")])[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy", path.name]


def test_what_is_no_store_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no store, but a text" * 1_000)
    with pytest.raises(EventStoreError, match="text: is not an event store"):
        copy_events(tmp_path / "text", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
