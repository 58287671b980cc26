"""Which event store a server uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rankloom_features.event_store.memory import NO_EVENTS, MemoryEventStore
from rankloom_features.event_store.sqlite import SqliteEventStore, copy_events
from rankloom_features.event_store.store import EventStore, EventStoreError, events_beside
from rankloom_server import logs
from rankloom_server.config import FeatureSettings, Settings
from rankloom_server.errors import StartError

EVENTS = "events.sqlite"  # in a state folder


@contextmanager
def opened_events(settings: Settings) -> Iterator[EventStore]:
    """The store in the file of ``events``; else the state folder's, else that beside the bundle.

    A new store of a state folder begins with the events beside the bundle. Where no file was
    asked for and none can be made beside the bundle, events live in memory, and the log says so.
    A server whose features come from elsewhere has none. Raises StartError.
    """
    _check_alone(settings.features)
    try:
        store = NO_EVENTS if settings.features.address else _opened(settings)
    except EventStoreError as error:
        raise StartError(f"events: {error}") from error
    try:
        yield store
    finally:
        store.close()


def _check_alone(features: FeatureSettings) -> None:
    """Raises StartError for what only the server of the features can do."""
    for name, given in (("events", features.events), ("features_port", features.served_at)):
        if features.address and given is not None:
            where = f"features come from {features.address}"
            raise StartError(f"{name}: {where}; give this setting to that server")


def _opened(settings: Settings) -> EventStore:
    beside, state = events_beside(settings.bundle), settings.rollout.state
    if settings.features.events is not None:
        return SqliteEventStore(settings.features.events)
    if state is not None:
        if beside.exists() and not (state / EVENTS).exists():
            copy_events(beside, state / EVENTS)
        return SqliteEventStore(state / EVENTS)
    if beside.exists() or os.access(beside.parent, os.W_OK):
        return SqliteEventStore(beside)
    reason = f"{beside.parent} cannot be written; give --events FILE to keep them"
    logs.write("events_in_memory", reason=reason)
    return MemoryEventStore()
