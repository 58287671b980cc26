"""Admission: how many calls are in flight, and whether new ones are taken. Pure policy.

There is no queue: a call that cannot be served now is refused now, while its caller
still has time to go elsewhere.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto

from rankloom_server.errors import NotServingError, OverloadedError


class AdmissionState(Enum):
    """Whether new calls are taken."""

    STARTING = auto()
    OPEN = auto()
    STALLED = auto()
    DRAINING = auto()


class Admission:
    """Counts the calls of one event loop."""

    def __init__(self, max_in_flight: int, apart: Mapping[str, int] | None = None) -> None:
        """``apart``: methods with limits of their own: long calls must not crowd out short ones."""
        self._apart = apart or {}
        self._max_in_flight = max_in_flight
        self._taken: Counter[str] = Counter()
        self._state = AdmissionState.STARTING
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = asyncio.Event()

    @property
    def num_in_flight(self) -> int:
        return self._taken.total()

    @property
    def state(self) -> AdmissionState:
        return self._state

    def open(self) -> None:
        """Takes calls, unless the server drains."""
        if self._state is not AdmissionState.DRAINING:
            self._state = AdmissionState.OPEN

    def stall(self) -> None:
        """Takes no calls until it is opened again; those in flight go on."""
        if self._state is AdmissionState.OPEN:
            self._state = AdmissionState.STALLED

    @contextmanager
    def admit(self, method: str = "") -> Iterator[None]:
        """Counts one call while the block runs. Raises NotServingError or OverloadedError."""
        if self._state is not AdmissionState.OPEN:
            raise self._closed()
        places = method if method in self._apart else ""
        with self._take(places, 1, self._apart.get(places, self._max_in_flight)):
            yield

    @contextmanager
    def admit_more(self, num_calls: int) -> Iterator[None]:
        """Counts a call in flight as so many calls more while the block runs.

        At most as all that the server admits: else it could never be served. Raises
        OverloadedError.
        """
        with self._take("", min(num_calls, self._max_in_flight - 1), self._max_in_flight):
            yield

    @contextmanager
    def _take(self, places: str, num: int, limit: int) -> Iterator[None]:
        if num and self._taken[places] + num > limit:
            raise OverloadedError("as many calls as the server admits are in flight")
        self._taken[places] += num
        self._idle.clear()
        try:
            yield
        finally:
            self._taken[places] -= num
            if not self.num_in_flight:
                self._idle.set()

    async def unless_draining(self, pause: Coroutine[object, object, None]) -> None:
        """Awaits for a call that never ends by itself. Raises NotServingError once it must end."""
        tasks = [asyncio.create_task(each) for each in (pause, self._until_draining())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if self._draining.is_set():
            raise self._closed()

    async def _until_draining(self) -> None:
        await self._draining.wait()

    def _closed(self) -> NotServingError:
        return NotServingError(f"the server is {self._state.name.lower()}; call another one")

    async def drain(self, timeout_s: float) -> bool:
        """Takes no more calls and waits for those in flight; returns whether all ended."""
        self._state = AdmissionState.DRAINING
        self._draining.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
