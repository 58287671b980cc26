"""Notices that the model hangs: such a server must not go on saying SERVING."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

from rankloom_server import logs

EXIT_CODE = 70  # "internal software error" of sysexits.h
_CHECKS_PER_LIMIT = 10
_LONGEST_PAUSE_S = 1.0


class WatchedModel(Protocol):
    """What runs models."""

    @property
    def busy_s(self) -> float:
        """Seconds that it has spent on what it runs now."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether it still takes work."""
        ...


def end_process() -> None:
    """Ends the process at once: a thread that hangs cannot be ended in another way."""
    os._exit(EXIT_CODE)


class Watchdog:
    """Compares the model's time with a limit, and says when it is over it and when no longer."""

    def __init__(
        self,
        model: WatchedModel,
        limit_s: float,
        report: Callable[[bool], Awaitable[None]],
        end: Callable[[], object] | None = None,
    ) -> None:
        """``report``: is called with whether the model works, when that changes.

        ``end``: is called once it does not.
        """
        self._model, self._limit_s, self._report, self._end = model, limit_s, report, end
        self._works = True

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await asyncio.sleep(min(_LONGEST_PAUSE_S, self._limit_s / _CHECKS_PER_LIMIT))
            await self.check()

    async def check(self) -> None:
        """Compares once. Writes one line where something has changed."""
        fault = self._fault()
        if self._works == (fault is None):
            return
        self._works = fault is None
        await self._report(self._works)
        if fault is None:
            logs.write("model_recovered")
            return
        logs.write("model_stalled", reason=fault)
        if self._end is not None:
            self._end()

    def _fault(self) -> str | None:
        if not self._model.is_alive:
            return "the model thread has ended"
        if self._model.busy_s > self._limit_s:
            return f"one pass of the model has taken over {self._limit_s:g} s"
        return None
