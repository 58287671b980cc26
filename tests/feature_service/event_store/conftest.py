"""Every event store, for the scenarios that all of them go through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rankloom_features.event_store.memory import MemoryEventStore
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import EventStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.sqlite"


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[EventStore]:
    with closing(MemoryEventStore() if request.param == "memory" else SqliteEventStore(path)) as it:
        yield it
