"""`EventRecorder`: events of many threads, recorded with few calls."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rankloom._checks import checked_integer
from rankloom._event_messages import build_user_event
from rankloom._events import UserEvent
from rankloom._feature_client import FeatureClient
from rankloom._outbox import (
    FLUSH_TIMEOUT_S,
    MAX_AGE_S,
    MAX_PENDING,
    PENDING_COUNTS,
    Outbox,
    PendingEvent,
    recorder_closed,
    still_waiting,
    telling_of,
    timed,
)
from rankloom._policy import checked_timeout_s
from rankloom.errors import ClientClosedError, RankloomError

_Send = Callable[[Sequence[UserEvent]], object]


class EventRecorder:
    """Records events in the background, many in one call; all threads may share one recorder.

        with FeatureClient("localhost:50053") as client, EventRecorder(client) as recorder:
            recorder.record(UserEvent(user="42", item_id="318", liked=True))

    An event waits at most `max_age_s` for others. While the server is away, calls are repeated
    until it is back, and each event counts once. `max_pending`: how many events may wait; when so
    many do, `record` blocks, and then raises BufferFullError. Nothing is dropped: `flush` and
    `close` raise EventsNotRecordedError, which holds the events that were not recorded.

    `close`, or the end of a `with` block, must come before the client is closed. A process that
    was forked has a buffer of its own, which begins empty: its parent sends what was in the other.
    Flush before a fork, since gRPC does not survive one in the middle of a call.
    """

    def __init__(
        self,
        client: FeatureClient,
        *,
        max_age_s: float = MAX_AGE_S,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._client = client
        self._max_age_s = checked_timeout_s(max_age_s, "max_age_s")
        self._max_pending = checked_integer(max_pending, PENDING_COUNTS, "max_pending")
        self._senders: dict[int, _Sender] = {}  # by process id

    def record(self, event: UserEvent, *, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Take the event, to record it soon; one without a time gets the present time.

        Raise BufferFullError if there is no room within `timeout_s`.
        """
        num_bytes = build_user_event(event, "event").ByteSize()
        self._sender.add(timed(event), num_bytes, checked_timeout_s(timeout_s))

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Return when all events that were taken are on the server's disk.

        Raise EventsNotRecordedError with the events that the server refused, or
        DeadlineExceededError if some still wait after `timeout_s`; these go on waiting.
        """
        self._sender.flush(checked_timeout_s(timeout_s))

    def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Record what waits, and take no more events.

        Raise EventsNotRecordedError with all events that are not known to be recorded after
        `timeout_s`. They can be recorded again: each counts once.
        """
        self._sender.close(checked_timeout_s(timeout_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with telling_of(error):
            self.close()

    @property
    def _sender(self) -> _Sender:
        """Of this process."""
        process = os.getpid()
        if (sender := self._senders.get(process)) is None:
            outbox = Outbox(self._max_age_s, self._max_pending)
            sender = self._senders.setdefault(process, _Sender(self._client.record_events, outbox))
        return sender


class _Sender:
    """Sends the events of one outbox, on a thread that starts with the first one."""

    def __init__(self, send: _Send, outbox: Outbox) -> None:
        self._send, self._outbox = send, outbox
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # for the thread
        self._progressed = threading.Condition(lock)  # for those who wait for it
        self._thread: threading.Thread | None = None
        self._num_flushes = 0
        self._closing = self._stopped = False

    def add(self, event: UserEvent, num_bytes: int, timeout_s: float) -> None:
        with self._changed:
            self._progressed.wait_for(lambda: self._closing or self._outbox.has_room, timeout_s)
            if self._closing:
                raise recorder_closed()
            if not self._outbox.has_room:
                raise self._outbox.full()
            due_s = self._outbox.due_s
            self._outbox.add(event, num_bytes, time.monotonic())
            if due_s is None or self._outbox.due_s == 0.0:
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="rankloom-event-recorder", daemon=True
                )
                self._thread.start()

    def flush(self, timeout_s: float) -> None:
        with self._changed:
            number, outbox = self._outbox.last, self._outbox
            self._wait_for(lambda: outbox.is_done(number), timeout_s)
            done, refused, failure = outbox.is_done(number), outbox.take_refused(), outbox.failure
            self._progressed.notify_all()  # what was refused has left room
        if refused is not None:
            raise refused
        if not done:
            raise still_waiting(timeout_s) from failure

    def close(self, timeout_s: float) -> None:
        with self._changed:
            self._closing = True
            outbox = self._outbox
            self._wait_for(lambda: outbox.is_done(outbox.last), timeout_s)
            self._stopped = True
            left = outbox.take_all()
            self._changed.notify()
            self._progressed.notify_all()
        if left is not None:
            raise left

    def _wait_for(self, is_reached: Callable[[], bool], timeout_s: float) -> None:
        """Has everything sent at once; the lock is taken."""
        self._num_flushes += 1
        self._changed.notify()
        try:
            self._progressed.wait_for(lambda: self._stopped or is_reached(), timeout_s)
        finally:
            self._num_flushes -= 1

    def _run(self) -> None:
        while call := self._next_call():
            self._settle(call, self._failure_of(call))

    def _next_call(self) -> list[PendingEvent]:
        """What to send; empty when there will be nothing more."""
        with self._changed:
            while not self._stopped:
                due_s, now_s = self._outbox.due_s, time.monotonic()
                if due_s is not None and (self._num_flushes or due_s <= now_s):
                    return self._outbox.next_call()
                self._changed.wait(None if due_s is None else due_s - now_s)
        return []

    def _failure_of(self, call: Sequence[PendingEvent]) -> RankloomError | None:
        try:
            self._send([each.event for each in call])
        except RankloomError as error:
            return error
        return None

    def _settle(self, call: Sequence[PendingEvent], error: RankloomError | None) -> None:
        """Notes what became of a call, and waits after a failure."""
        with self._changed:
            if self._stopped:
                return
            delay_s = self._outbox.settle(call, error)
            if isinstance(error, ClientClosedError):
                self._closing = self._stopped = True
            self._progressed.notify_all()
            self._changed.wait_for(lambda: self._stopped, delay_s)
