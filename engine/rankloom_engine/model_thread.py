"""The thread on which models run: two at a time would only take turns on the cores.

It differs from an executor of the standard library in two ways: one can see for how long it has
been busy, and the end of the process does not wait for it, since a kernel may never return.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from rankloom_engine.errors import EngineFailedError

T = TypeVar("T")
_Work = tuple[Future[Any], Callable[[], Any]]


class ModelThread:
    """Runs functions one after the other. Start them from event loops."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._began: float | None = None
        self._thread = Thread(target=self._work_off, name="rankloom-model", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        """Seconds that the function has been running that runs now; 0 for none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def is_alive(self) -> bool:
        """Whether it still takes functions."""
        return self._thread.is_alive()

    def run(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Queues a function; its result, or its exception."""
        future: Future[T] = Future()
        self._queue.put((future, partial(function, *arguments)))
        return asyncio.wrap_future(future)

    async def close(self, timeout_s: float) -> None:
        """Finishes what is queued and ends, or is left alone after the timeout."""
        last = self.run(lambda: None)
        self._queue.put(None)
        done, _ = await asyncio.wait({last}, timeout=timeout_s)
        if done:
            self._thread.join()

    def _work_off(self) -> None:
        while (work := self._queue.get()) is not None:
            self._carry_out(*work)
            del work  # while it waits, nothing is kept in memory

    def _carry_out(self, future: Future[Any], function: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._began = time.monotonic()
        try:
            result = function()
        except Exception as error:  # whatever it is, it belongs to the caller
            future.set_exception(error)
        except BaseException as error:  # in the caller's event loop it would end the process
            failure = EngineFailedError("the model asked the process to end")
            failure.__cause__ = error
            future.set_exception(failure)
        else:
            future.set_result(result)
        finally:
            self._began = None
