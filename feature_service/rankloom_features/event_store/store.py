"""What an event store does, whichever way it keeps its events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rankloom_features.events import Event


class EventStoreError(Exception):
    """The store cannot do what was asked: what is wrong, where, and what to do."""


class EventStoreFullError(EventStoreError):
    """No room for more events on the disk; what was stored before stays readable."""


class EventStoreDamagedError(EventStoreError):
    """What was asked for lies on a damaged page; users on other pages can still be read."""


class LongHistoryError(Exception):
    """The user has more events than the caller has time for; ask again without a limit."""


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One event to store. ``event_id``: unique among the user's events. ``event.time``: set."""

    event_id: str
    user_id: str
    event: Event


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """A user's events, oldest first; at equal times in the order in which they were stored.

    ``version``: 0 without events, else the position of the event that was stored last. Positions
    only grow, also after the user was forgotten, so that one version is one history.
    """

    events: tuple[Event, ...]
    version: int


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """``position``: of the event that was stored last, of any user. ``num_bytes``: on disk."""

    num_users: int
    num_events: int
    position: int
    num_bytes: int


class EventStore(Protocol):
    """Keeps events by user. Safe from several threads; each method may block on the disk.

    Each method raises EventStoreError where the store cannot be read or written.
    """

    def version(self, user_id: str) -> int:
        """The version of the user's history; much cheaper than the history."""
        ...

    def history(
        self, user_id: str, version: int | None = None, most: int | None = None
    ) -> StoredHistory:
        """All stored events of the user, of one moment.

        ``version``: as of an earlier version, without the events that were stored later. Raises
        LongHistoryError, after reading little, where there are more than ``most``.
        """
        ...

    def append(self, events: Sequence[UserEvent]) -> tuple[int, ...]:
        """Stores all events or none, durably before it returns. Returns their positions.

        An event whose user has an event with this id already is not stored again: it keeps its
        first position, whatever else differs. Raises EventStoreFullError too.
        """
        ...

    def users(self) -> Iterator[str]:
        """The users with events, in the same order each time; may be millions."""
        ...

    def forget(self, user_id: str) -> int:
        """Removes the user and all of the user's events from the disk; returns their number."""
        ...

    def statistics(self) -> StoreStatistics:
        """Counts of the whole store; may take seconds on a large one."""
        ...

    def close(self) -> None:
        """Releases files; the store cannot be used afterwards."""
        ...


def events_beside(bundle: Path) -> Path:
    """The file of the events that a training wrote beside a bundle's folder."""
    return bundle.with_name(f"{bundle.name}.events.sqlite")
