"""Events to store, made in one line."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom_features.event_store.store import EventStore, UserEvent
from rankloom_features.events import Event


def made(
    event_id: str, user: str = "u", item: str = "i", time: float = 1.0, liked: bool = True
) -> UserEvent:
    return UserEvent(event_id, user, Event(item, liked, time))


def items_of(store: EventStore, user: str = "u") -> Sequence[str]:
    return [event.item_id for event in store.history(user).events]
