from __future__ import annotations

from pathlib import Path

import pytest

from rankloom_adapters.bundle import open_bundle
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import events_beside
from rankloom_ranker.loaded import LoadedBundle, load_bundle


@pytest.fixture(scope="session")
def loaded(served_folder: Path) -> LoadedBundle:
    store = SqliteEventStore(events_beside(served_folder))
    return load_bundle(open_bundle(served_folder), events=store)
