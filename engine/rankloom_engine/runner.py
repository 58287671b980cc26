"""The one model thread: work from many requests goes through it in micro-batches."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray

from rankloom_engine.errors import EngineClosedError, EngineFailedError, WorkExpiredError
from rankloom_engine.model import Decoder
from rankloom_engine.packing import PackedRow, collate
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Job, Scheduler

DEFAULT_MAX_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """(candidates,) float32 margins, and the seconds in the queue and in the model."""

    margins: NDArray[np.float32]
    queue_s: float
    model_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    row: PackedRow
    weights: NDArray[np.float32]
    done: asyncio.Future[_RowResult]
    submitted: float


@dataclass(frozen=True, slots=True, eq=False)
class _RowResult:
    """``model``: when its micro-batch began and ended."""

    margins: NDArray[np.float32]
    queue_s: float
    model: tuple[float, float]


class EngineRunner:
    """Scores prompts on one thread of its own; use it from one event loop."""

    def __init__(
        self, decoder: Decoder, *, max_batch_tokens: int = DEFAULT_MAX_BATCH_TOKENS
    ) -> None:
        self._decoder = decoder
        self._scheduler = Scheduler(max_batch_tokens)
        self._work: dict[int, _Work] = {}
        self._keys = itertools.count()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rankloom-model")
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Begins to take work."""
        self._loop = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Finishes what was submitted, then stops the thread."""
        self._closing = True
        self._arrived.set()
        if self._loop is not None:
            await self._loop
        self._thread.shutdown()

    async def score(
        self, prompt: Prompt, weights: NDArray[np.float32], deadline: float | None = None
    ) -> Scored:
        """Margins of one request with its row of expert weights (K,).

        ``deadline`` is on time.monotonic's clock. Raises WorkExpiredError,
        EngineFailedError or EngineClosedError. A cancelled call leaves the queue.
        """
        if self._closing or self._loop is None:
            raise EngineClosedError("the engine takes no work")
        keys = [self._submit(row, weights, deadline) for row in prompt.rows]
        try:
            results = await asyncio.gather(*(self._work[key].done for key in keys))
        finally:
            self._forget(keys)
        return Scored(
            np.concatenate([result.margins for result in results]),
            max(result.queue_s for result in results),
            _span([result.model for result in results]),
        )

    def _submit(self, row: PackedRow, weights: NDArray[np.float32], deadline: float | None) -> int:
        key = next(self._keys)
        done: asyncio.Future[_RowResult] = asyncio.get_running_loop().create_future()
        self._work[key] = _Work(row, weights, done, time.monotonic())
        self._scheduler.add(Job(key, len(row), inf if deadline is None else deadline))
        self._arrived.set()
        return key

    def _forget(self, keys: Sequence[int]) -> None:
        for key in keys:
            self._scheduler.remove(key)
            self._work.pop(key, None)

    async def _run(self) -> None:
        while not (self._closing and not len(self._scheduler)):
            await self._arrived.wait()
            self._arrived.clear()
            while len(self._scheduler):
                await self._run_batch()

    async def _run_batch(self) -> None:
        batch = self._scheduler.take(time.monotonic())
        self._fail([self._work[job.key] for job in batch.expired], WorkExpiredError())
        work = [self._work[job.key] for job in batch.jobs]
        if not work:
            return
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            margins = await loop.run_in_executor(self._thread, self._forward, work)
        except Exception as error:  # whatever the model raised, its callers must hear of it
            failure = EngineFailedError("the model failed on a micro-batch")
            failure.__cause__ = error
            self._fail(work, failure)
            return
        self._deliver(work, margins, started)

    def _forward(self, work: Sequence[_Work]) -> list[NDArray[np.float32]]:
        """Runs on the model thread."""
        with torch.inference_mode():
            weights = torch.from_numpy(np.stack([item.weights for item in work]))
            margins = self._decoder.mixed_margins(collate([item.row for item in work]), weights)
            ends = np.cumsum([len(item.row.verdict_at) for item in work])[:-1]
            return np.split(margins.numpy(), ends)

    def _deliver(
        self, work: Sequence[_Work], margins: Sequence[NDArray[np.float32]], started: float
    ) -> None:
        ran = (started, time.monotonic())
        for item, row in zip(work, margins, strict=True):
            if item.done.done():  # its caller has gone
                continue
            if np.isfinite(row).all():
                item.done.set_result(_RowResult(row, started - item.submitted, ran))
            else:
                item.done.set_exception(EngineFailedError("the model gave a non-finite score"))

    def _fail(self, work: Sequence[_Work], error: Exception) -> None:
        for item in work:
            if not item.done.done():
                item.done.set_exception(error)


def _span(runs: Sequence[tuple[float, float]]) -> float:
    """Seconds in the model: rows that shared a micro-batch count it once."""
    return sum(end - start for start, end in set(runs))
