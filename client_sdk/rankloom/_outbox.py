"""Events that wait to be recorded: which go into the next call, and what became of them.

Numbers and rules; no threads, no gRPC.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from rankloom._events import UserEvent
from rankloom.errors import (
    BufferFullError,
    ClientClosedError,
    DeadlineExceededError,
    EventsNotRecordedError,
    InvalidRequestError,
    RankloomError,
)

MAX_AGE_S: Final = 0.05
MAX_PENDING: Final = 10_000
PENDING_COUNTS: Final = range(1, 2**31)
FLUSH_TIMEOUT_S: Final = 10.0
MAX_CALL_EVENTS: Final = 1_000
MAX_CALL_BYTES: Final = 512 * 1024  # a server takes messages of 1 MiB, unless it is told otherwise
FIRST_RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 1.0
_NAMED: Final = re.compile(r"events\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """`number`: counts the events of an outbox. `due_s`: when it must be sent."""

    number: int
    event: UserEvent
    num_bytes: int
    due_s: float


class Outbox:
    """The pending events, oldest first, and those that the server refused."""

    def __init__(self, max_age_s: float, max_pending: int) -> None:
        self._max_age_s, self._max_pending = max_age_s, max_pending
        self._pending: deque[PendingEvent] = deque()
        self._refused: list[UserEvent] = []
        self._refusal: RankloomError | None = None
        self._num_failures = 0  # in a row
        self.last = 0
        self.failure: RankloomError | None = None

    @property
    def has_room(self) -> bool:
        return len(self._pending) + len(self._refused) < self._max_pending

    @property
    def due_s(self) -> float | None:
        """When the next call must be made; None: there is nothing to send."""
        if not self._pending:
            return None
        is_full = len(self._pending) >= MAX_CALL_EVENTS
        return 0.0 if is_full else self._pending[0].due_s

    def add(self, event: UserEvent, num_bytes: int, now_s: float) -> None:
        self.last += 1
        due_s = now_s + self._max_age_s
        self._pending.append(PendingEvent(self.last, event, num_bytes, due_s))

    def is_done(self, number: int) -> bool:
        """Whether nothing up to this event waits."""
        return not self._pending or self._pending[0].number > number

    def next_call(self) -> list[PendingEvent]:
        """The oldest events, as many as fit into one call; they stay pending."""
        num_bytes, found = 0, list[PendingEvent]()
        for each in islice(self._pending, MAX_CALL_EVENTS):
            num_bytes += each.num_bytes
            if found and num_bytes > MAX_CALL_BYTES:
                break
            found.append(each)
        return found

    def settle(self, sent: Sequence[PendingEvent], error: RankloomError | None) -> float:
        """Note what became of a call with the oldest events: durable, refused or still pending.

        Return how many seconds to wait before the next call.
        """
        if error is not None and not isinstance(error, InvalidRequestError):
            self.failure = error
            self._num_failures += 1
            return _retry_delay_s(error, self._num_failures)
        self._drop(sent)
        if error is None:
            self.failure = None
        else:
            self._refuse(sent, error)
        self._num_failures = 0
        return 0.0

    def _refuse(self, sent: Sequence[PendingEvent], error: InvalidRequestError) -> None:
        """The server named wrong events among the `sent` ones, or none: then all are wrong."""
        named = {int(found[1]) for each in error.violations if (found := _NAMED.match(each.field))}
        wrong = {index for index in named if index < len(sent)} or set(range(len(sent)))
        self._refusal = error
        self._refused += [sent[index].event for index in sorted(wrong)]
        self._pending.extendleft(
            each for index, each in reversed([*enumerate(sent)]) if index not in wrong
        )

    def take_refused(self) -> EventsNotRecordedError | None:
        """The error that hands the refused events back to the caller; None if there are none."""
        refused, self._refused = self._refused, []
        return _not_recorded(refused, self._refusal) if refused else None

    def take_all(self) -> EventsNotRecordedError | None:
        """The error with all events that are not known to be durable; None if there are none."""
        left = [*self._refused, *(each.event for each in self._pending)]
        cause = self.failure or self._refusal
        self._refused, self._pending = [], deque()
        return _not_recorded(left, cause) if left else None

    def full(self) -> BufferFullError:
        """The error of an event that finds no room."""
        error = BufferFullError(
            f"{self._max_pending} events wait for the server; wait until it answers, then record "
            "this event again, or call flush, which says what is wrong"
        )
        error.__cause__ = self.failure or self._refusal
        return error

    def _drop(self, sent: Sequence[PendingEvent]) -> None:
        for _ in sent:
            self._pending.popleft()


def _not_recorded(
    events: Sequence[UserEvent], cause: RankloomError | None
) -> EventsNotRecordedError:
    why = "the server did not answer in time" if cause is None else str(cause)
    error = EventsNotRecordedError(f"{len(events)} events are not recorded: {why}", tuple(events))
    error.__cause__ = cause
    return error


@contextmanager
def telling_of(error: BaseException | None) -> Iterator[None]:
    """Keep the error that ended a `with` block in sight, as the cause, if closing fails as well."""
    try:
        yield
    except EventsNotRecordedError as left:
        if error is None:
            raise
        raise left from error


def still_waiting(limit_s: float) -> DeadlineExceededError:
    """Return the error of a flush that took too long; its cause is the last failure, if any."""
    return DeadlineExceededError(
        f"events still wait for the server after {limit_s:g} s; see the cause, if any"
    )


def recorder_closed() -> ClientClosedError:
    """Return the error of an event that comes after `close`."""
    return ClientClosedError("the recorder is closed; make a new one")


def timed(event: UserEvent) -> UserEvent:
    """Return the event with a time: it may reach the server much later."""
    return event if event.time else replace(event, time=datetime.now(UTC))


def _retry_delay_s(error: RankloomError, num_failures: int) -> float:
    asked = error.details.retry_after_s
    grown: float = FIRST_RETRY_S * 2 ** min(num_failures - 1, 10)
    return min(max(asked or 0.0, grown), MAX_RETRY_S)
