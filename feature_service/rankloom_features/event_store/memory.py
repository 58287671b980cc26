"""An event store in memory: for tests, and for a bundle that is used without a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Final

from rankloom_features.event_store.store import (
    LongHistoryError,
    StoredHistory,
    StoreStatistics,
    UserEvent,
)
from rankloom_features.events import Event


class MemoryEventStore:
    """An EventStore that ends with the process."""

    def __init__(self, events: Iterable[UserEvent] = ()) -> None:
        self._lock = Lock()
        self._position = 0
        self._users: dict[str, dict[str, tuple[int, Event]]] = {}
        self.append(tuple(events))

    def version(self, user_id: str) -> int:
        return self.history(user_id).version

    def history(
        self, user_id: str, version: int | None = None, most: int | None = None
    ) -> StoredHistory:
        with self._lock:
            stored = sorted(self._users.get(user_id, {}).values(), key=_by_time)
        seen = [each for each in stored if version is None or each[0] <= version]
        if most is not None and len(seen) > most:
            raise LongHistoryError
        last = max((position for position, _ in seen), default=0)
        return StoredHistory(tuple(event for _, event in seen), last)

    def append(self, events: Sequence[UserEvent]) -> tuple[int, ...]:
        with self._lock:
            return tuple(map(self._append, events))

    def users(self) -> Iterator[str]:
        with self._lock:
            return iter(tuple(self._users))

    def forget(self, user_id: str) -> int:
        with self._lock:
            return len(self._users.pop(user_id, ()))

    def statistics(self) -> StoreStatistics:
        with self._lock:
            num_events = sum(map(len, self._users.values()))
            return StoreStatistics(len(self._users), num_events, self._position, 0)

    def close(self) -> None:
        """Holds no file."""

    def _append(self, event: UserEvent) -> int:
        of_user = self._users.setdefault(event.user_id, {})
        if event.event_id not in of_user:
            self._position += 1
            of_user[event.event_id] = (self._position, event.event)
        return of_user[event.event_id][0]


NO_EVENTS: Final = MemoryEventStore()  # where all histories are given inline; nothing is stored


def _by_time(stored: tuple[int, Event]) -> tuple[float, int]:
    position, event = stored
    return event.time or 0.0, position
