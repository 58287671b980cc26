"""`AsyncEventRecorder`: events of many coroutines, recorded with few calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from rankloom._checks import checked_integer
from rankloom._event_messages import build_user_event
from rankloom._events import UserEvent
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
from rankloom.aio._feature_client import AsyncFeatureClient
from rankloom.errors import ClientClosedError, RankloomError


class AsyncEventRecorder:
    """Records events in the background, many in one call, in the event loop that first used it.

        async with (
            AsyncFeatureClient("localhost:50053") as client,
            AsyncEventRecorder(client) as recorder,
        ):
            await recorder.record(UserEvent(user="42", item_id="318", liked=True))

    The rules are those of `EventRecorder`.
    """

    def __init__(
        self,
        client: AsyncFeatureClient,
        *,
        max_age_s: float = MAX_AGE_S,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._client = client
        self._outbox = Outbox(
            checked_timeout_s(max_age_s, "max_age_s"),
            checked_integer(max_pending, PENDING_COUNTS, "max_pending"),
        )
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._num_flushes = 0
        self._closing = self._stopped = False

    async def record(self, event: UserEvent, *, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Take the event, as `EventRecorder.record`."""
        num_bytes = build_user_event(event, "event").ByteSize()
        limit_s = checked_timeout_s(timeout_s)
        async with self._changed:
            await self._wait_for(lambda: self._closing or self._outbox.has_room, limit_s)
            if self._closing:
                raise recorder_closed()
            if not self._outbox.has_room:
                raise self._outbox.full()
            self._outbox.add(timed(event), num_bytes, time.monotonic())
            self._task = self._task or asyncio.create_task(self._run())
            self._changed.notify_all()

    async def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Return when all events that were taken are on disk, as `EventRecorder.flush`."""
        limit_s, outbox = checked_timeout_s(timeout_s), self._outbox
        async with self._changed:
            number = outbox.last
            await self._send_all(lambda: outbox.is_done(number), limit_s)
            done, refused, failure = outbox.is_done(number), outbox.take_refused(), outbox.failure
            self._changed.notify_all()  # what was refused has left room
        if refused is not None:
            raise refused
        if not done:
            raise still_waiting(limit_s) from failure

    async def close(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Record what waits, and take no more events, as `EventRecorder.close`."""
        limit_s, outbox = checked_timeout_s(timeout_s), self._outbox
        async with self._changed:
            self._closing = True
            await self._send_all(lambda: outbox.is_done(outbox.last), limit_s)
            self._stopped = True
            left = outbox.take_all()
            self._changed.notify_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if left is not None:
            raise left

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with telling_of(error):
            await self.close()

    async def _send_all(self, is_reached: Callable[[], bool], limit_s: float) -> None:
        self._num_flushes += 1
        self._changed.notify_all()
        try:
            await self._wait_for(lambda: self._stopped or is_reached(), limit_s)
        finally:
            self._num_flushes -= 1

    async def _wait_for(self, is_reached: Callable[[], bool], limit_s: float) -> None:
        """Returns also when the time is over; the lock is taken, before and after."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._changed.wait_for(is_reached)

    async def _run(self) -> None:
        while call := await self._next_call():
            await self._settle(call, await self._failure_of(call))

    async def _next_call(self) -> list[PendingEvent]:
        """What to send; empty when there will be nothing more."""
        async with self._changed:
            while not self._stopped:
                due_s, now_s = self._outbox.due_s, time.monotonic()
                if due_s is not None and (self._num_flushes or due_s <= now_s):
                    return self._outbox.next_call()
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due_s is None else due_s - now_s):
                        await self._changed.wait()
        return []

    async def _failure_of(self, call: Sequence[PendingEvent]) -> RankloomError | None:
        try:
            await self._client.record_events([each.event for each in call])
        except RankloomError as error:
            return error
        return None

    async def _settle(self, call: Sequence[PendingEvent], error: RankloomError | None) -> None:
        """Notes what became of a call, and waits after a failure."""
        async with self._changed:
            if self._stopped:
                return
            delay_s = self._outbox.settle(call, error)
            if isinstance(error, ClientClosedError):
                self._closing = self._stopped = True
            self._changed.notify_all()
            if delay_s:
                await self._wait_for(lambda: self._stopped, delay_s)
