"""The events of a log, as a server keeps them: in a store beside the bundle that they trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import EventStore, events_beside
from rankloom_features.event_store.transfer import import_batches
from rankloom_features.events import Event
from rankloom_training.data import DataError, Dataset

_BATCH_ROWS = 100_000


def write_events(dataset: Dataset, bundle: Path) -> None:
    """Stores the events of the log beside a bundle's folder; those that are there stay.

    Raises EventStoreError.
    """
    with closing(SqliteEventStore(events_beside(bundle))) as store:
        import_batches(store, event_batches(dataset), lambda *_: None)


def event_batches(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    """The rows that happened, by user and time: user_id, item_id, liked and time."""
    log = dataset.log
    users = pa.array(log.user_ids, pa.string())
    items = pa.array(dataset.catalogue.item_ids, pa.string())
    rows = np.flatnonzero(log.happened)
    for part in np.split(rows, range(_BATCH_ROWS, len(rows), _BATCH_ROWS)):
        yield pa.record_batch(
            {
                "user_id": users.take(pa.array(log.user[part])),
                "item_id": items.take(pa.array(log.item[part])),
                "liked": pa.array(log.liked[part].astype(np.int8)),
                "time": pa.array(log.time[part]),
            }
        )


def user_history(dataset: Dataset, user: int) -> tuple[Event, ...]:
    """The events of a user, by code, oldest first."""
    log, items = dataset.log, dataset.catalogue.items
    first, end = np.searchsorted(log.user, (user, user + 1))
    return tuple(
        Event(items[log.item[row]].item_id, bool(log.liked[row]), float(log.time[row]))
        for row in first + np.flatnonzero(log.happened[first:end])
    )


def events_of_bundle(bundle: Path) -> AbstractContextManager[EventStore]:
    """The store beside a bundle's folder. Raises DataError where there is none."""
    return opened_events(events_beside(bundle))


@contextmanager
def opened_events(path: Path) -> Iterator[EventStore]:
    """The store in a file. Raises DataError where there is none."""
    if not path.exists():
        raise DataError(
            f"{path}: no such file; import the users' events with: "
            f"rankloom events import {path} FILE"
        )
    with closing(SqliteEventStore(path)) as store:
        yield store
