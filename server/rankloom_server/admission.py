"""Admission: how many calls are in flight, and whether new ones are taken. Pure policy.

There is no queue: a call that cannot be served now is refused now, while its caller
still has time to go elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from rankloom_server.errors import NotServingError, OverloadedError


class State(Enum):
    """What happens to a new call."""

    STARTING = auto()
    OPEN = auto()
    DRAINING = auto()


class Admission:
    """Counts the calls of one event loop."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._state = State.STARTING
        self._idle = asyncio.Event()
        self._idle.set()
        self.num_in_flight = 0

    def open(self) -> None:
        """Takes calls from now on."""
        self._state = State.OPEN

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Holds a place for one call. Raises NotServingError or OverloadedError."""
        if self._state is not State.OPEN:
            raise NotServingError(f"the server is {self._state.name.lower()}; call another one")
        if self.num_in_flight >= self._max_in_flight:
            raise OverloadedError("as many calls as the server admits are in flight")
        self.num_in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_in_flight -= 1
            if not self.num_in_flight:
                self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Takes no more calls and waits for those in flight; answers whether all ended."""
        self._state = State.DRAINING
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
