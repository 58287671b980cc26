"""Those who wait for the model: rankings and explanations, from their coming to their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.errors import EngineFailedError, NonFiniteError, WorkExpiredError
from rankloom_engine.explain import Explanation, StopReason, TokenChunk
from rankloom_engine.model import Next
from rankloom_engine.scheduler import Job, Kind
from rankloom_engine.work import Work


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How a caller wants to be served. ``deadline``: on time.monotonic's clock.

    ``partial``: at the deadline, what has been scored by then is an answer.
    """

    deadline: float = inf
    caller: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """(candidates,) float32 margins, NaN where time ran out, and where the seconds went.

    ``reused``: the prefix was kept from an earlier call.
    """

    margins: NDArray[np.float32]
    queue_s: float
    model_s: float
    reused: bool


class Call:
    """One ranking that waits: its work, and when the model was busy with it.

    ``key``: what its prefix is kept by, if it is. ``beside``: what can be done meanwhile.
    """

    def __init__(
        self,
        work: Work,
        key: bytes | None,
        options: RequestOptions,
        beside: Callable[[], object] | None,
    ) -> None:
        self.work, self.key, self.options = work, key, options
        self.reused = work.cached is not None
        self.submitted = time.monotonic()
        self.first_started: float | None = None
        self.model_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._beside = beside

    def job(self, key: int) -> Job:
        """What the scheduler needs to know."""
        return self.work.job(key, self.options.deadline, self.options.caller)

    async def finished(self) -> None:
        """Waits for the end, or for the deadline. Raises what the call failed with."""
        if self.options.deadline == inf:
            await self.done
            return
        left_s = max(self.options.deadline - time.monotonic(), 0.0)
        late = asyncio.get_running_loop().call_later(left_s, self.expire)
        try:
            await self.done
        finally:
            late.cancel()

    def work_beside(self) -> None:
        """Once, while the model is busy. Who needs what it works out meets what it raises."""
        beside, self._beside = self._beside, None
        if beside is not None:
            with suppress(Exception):
                beside()

    def scored(self) -> Scored:
        """What is known now."""
        began = self.submitted if self.first_started is None else self.first_started
        return Scored(
            self.work.margins.copy(), began - self.submitted, self.model_s, reused=self.reused
        )

    def expire(self) -> None:
        """The deadline has passed: who takes a part gets what is there, be it nothing."""
        if self.options.partial:
            self.finish()
        else:
            self.fail(WorkExpiredError())

    def fail(self, error: Exception) -> None:
        """The call gets no answer."""
        if not self.done.done():
            self.done.set_exception(error)

    def finish(self) -> None:
        """The call gets what is there."""
        if not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True, slots=True, eq=False)
class DecodeRequest:
    """One explanation that is being decoded, and its words that wait to be taken."""

    text: Explanation
    options: RequestOptions
    queue: asyncio.Queue[TokenChunk | EngineFailedError]

    def job(self, key: int) -> Job:
        """Its next step, as the scheduler needs to know it."""
        tokens, options = (len(self.text.next),), self.options
        return Job(key, 0, tokens, options.deadline, options.caller, Kind.EXPLANATION)

    async def words(self) -> TokenChunk:
        """The next words, or the end at the deadline. Raises EngineFailedError."""
        deadline = self.options.deadline
        timeout = None if deadline == inf else max(deadline - time.monotonic(), 0.0)
        try:
            found = await asyncio.wait_for(self.queue.get(), timeout)
        except TimeoutError:
            return TokenChunk((), StopReason.DEADLINE)
        if isinstance(found, EngineFailedError):
            raise found
        return found

    def take(self, found: Next) -> bool:
        """Passes the words of a step on; whether there are more to come."""
        if not np.isfinite(found.logits).all():
            self.queue.put_nowait(NonFiniteError("the model gave a non-finite score"))
            return False
        words = self.text.take(found)
        self.queue.put_nowait(words)
        return words.stop is None
