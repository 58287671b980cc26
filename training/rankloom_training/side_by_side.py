"""Small models side by side: each thread works with a model of its own, on one core.

The products of a small model are too small to be shared by cores: two models that train on one
core each get through about 1.6 times as many steps as one that has both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock
from typing import Generic, TypeVar

import torch

from rankloom_engine.model import Decoder

SMALL = 10_000_000  # parameters; a larger model keeps all cores busy
OnStep = Callable[[int, int], None]
M = TypeVar("M")
T = TypeVar("T")


class StoppedError(Exception):
    """Ends a job when another has failed, or when the user has interrupted them."""


def copies(decoder: Decoder, num_jobs: int) -> list[Decoder]:
    """The decoder and as many copies as the cores and jobs can use; none of a large one."""
    is_small = sum(each.numel() for each in decoder.model.parameters()) <= SMALL
    on_cores = is_small and decoder.device.type == "cpu"
    num = min(torch.get_num_threads(), num_jobs) if on_cores else 1
    return [decoder, *(copy.deepcopy(decoder) for _ in range(num - 1))]


class SideBySide(Generic[M]):
    """Does jobs, each with one of some equal models, as many at a time as there are models.

    ``on_step`` is called with how much is done, and how much there is.
    """

    def __init__(self, models: Sequence[M], on_step: OnStep) -> None:
        self._num, self._on_step = len(models), on_step
        self._free: SimpleQueue[M] = SimpleQueue()
        for each in models:
            self._free.put(each)
        self._lock, self._stopping = Lock(), Event()

    def run(self, jobs: Sequence[Callable[[M, OnStep], T]], sizes: Sequence[int]) -> list[T]:
        """Results in the jobs' order. What a job raises is passed on, and ends the others.

        ``sizes``: of the jobs, in any unit. A job gets a model, and must call what it gets with it
        after each step, with the numbers of steps that are done and of all.
        """
        done = [0.0] * len(jobs)
        tasks = [
            partial(self.do, job, partial(self._step, done, sizes, at))
            for at, job in enumerate(jobs)
        ]
        if self._num == 1:
            return [task() for task in tasks]
        num_threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self._num, initializer=_use_one_core) as pool:
                return self._results([pool.submit(task) for task in tasks])
        finally:
            torch.set_num_threads(num_threads)  # what a thread sets holds for later threads too

    def do(self, job: Callable[[M, OnStep], T], on_step: OnStep) -> T:
        """Does one job, in this thread, with a model that is free."""
        model = self._free.get()
        try:
            return job(model, on_step)
        finally:
            self._free.put(model)

    def _step(
        self, done: list[float], sizes: Sequence[int], at: int, num_done: int, num_all: int
    ) -> None:
        if self._stopping.is_set():
            raise StoppedError
        with self._lock:
            done[at] = sizes[at] * num_done / max(num_all, 1)
            self._on_step(round(sum(done)), sum(sizes))

    def _results(self, tasks: Sequence[Future[T]]) -> list[T]:
        try:
            ended, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            return [each.result() for each in (*ended, *tasks)][len(ended) :]
        except BaseException:
            self._stopping.set()
            for each in tasks:
                each.cancel()
            raise


def _use_one_core() -> None:
    torch.get_num_threads()  # a thread's first call takes what holds for all
    torch.set_num_threads(1)
