"""Processes of the server's benchmark: the server, and workers that run one function at a time.

The one that begins a process also ends it, by its own handle, however the work ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from rankloom_server.config import Settings
from rankloom_training.serving import serving

T = TypeVar("T")


class WorkerError(Exception):
    """The work failed in its process, or the process ended before it; the message says how."""


class Worker:
    """A running process; make it with ``worker``."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self.pid = pid
        self._pipe = pipe

    def run(self, work: Callable[..., T], *args: object) -> T:
        """What ``work`` gives in that process. Raises WorkerError."""
        self.begin(work, *args)
        return cast("T", self.result())

    def begin(self, work: Callable[..., object], *args: object) -> None:
        """Starts ``work`` and does not wait; ``result`` does."""
        self._pipe.send((work, args))

    def result(self) -> Any:  # noqa: ANN401
        """What the work that was begun gave. Raises WorkerError."""
        try:
            found, failure = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise WorkerError("a process of the benchmark ended before its work") from None
        if failure is not None:
            raise WorkerError(failure)
        return found


@contextmanager
def worker() -> Iterator[Worker]:
    """A fresh process, which is ended and waited for when the body ends, however it ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), daemon=True)
    process.start()
    there.close()  # so that its end is heard here
    try:
        yield Worker(cast("int", process.pid), here)
    finally:
        process.terminate()
        process.join()
        here.close()


@contextmanager
def server(settings: Settings) -> Iterator[tuple[str, int]]:
    """Address and process of ``rankloom serve`` with these settings."""
    config = settings.bundle.with_name(f"{settings.bundle.name}.yaml")
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    others = children()
    with serving(settings.bundle, "--config", str(config)) as address:
        [pid] = children() - others
        yield address, pid


def children() -> set[int]:
    """Processes that this thread has begun."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return set(map(int, path.read_text().split()))


def cpu_s_of(pid: int) -> float:
    """User and system time of all threads of a process, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(pipe: Connection) -> None:
    # Ctrl-C reaches the whole terminal group; the process that began this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            work, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((work(*args), None))
        except Exception:  # told as text: not every exception can be sent
            pipe.send((None, traceback.format_exc()))
