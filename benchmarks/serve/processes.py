"""The server, and worker processes that run one function at a time.

Whoever starts a process also ends it, through its own handle, however the work ends.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from benchmarks.common.children import child_ids, without_interrupts
from rankloom_server.config import Settings
from rankloom_training.serving import serving

T = TypeVar("T")


class WorkerError(Exception):
    """The work failed in its process, or the process ended; the message says how."""


class BenchmarkWorker:
    """A running process; start it with ``worker``."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self.pid = pid
        self._pipe = pipe

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Runs ``work`` in that process and returns its result. Raises WorkerError."""
        self.begin(work, *args)
        return cast("T", self.result())

    def begin(self, work: Callable[..., object], *args: object) -> None:
        """Starts ``work``; ``result`` waits for it."""
        self._pipe.send((work, args))

    def result(self) -> Any:  # noqa: ANN401
        """The result of the work that was begun. Raises WorkerError."""
        try:
            found, failure = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise WorkerError("a process of the benchmark ended before its work was done") from None
        if failure is not None:
            raise WorkerError(failure)
        return found


@contextmanager
def worker() -> Iterator[BenchmarkWorker]:
    """A fresh process; it is ended and awaited when the block ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), daemon=True)
    with without_interrupts():
        process.start()
    there.close()  # so that recv here notices when the process ends
    try:
        yield BenchmarkWorker(cast("int", process.pid), here)
    finally:
        process.terminate()
        process.join()
        here.close()


@contextmanager
def server(settings: Settings) -> Iterator[tuple[str, int]]:
    """Runs ``rankloom serve`` with these settings; yields its address and process id."""
    config = settings.bundle.with_name(f"{settings.bundle.name}.yaml")
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    others = child_ids()
    with serving(settings.bundle, "--config", str(config)) as address:
        [pid] = child_ids() - others
        yield address, pid


def cpu_s_of(pid: int) -> float:
    """User and system time of all threads of a process, in steps of a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(pipe: Connection) -> None:
    while True:
        try:
            work, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((work(*args), None))
        except Exception:  # sent as text: not every exception can be pickled
            pipe.send((None, traceback.format_exc()))
