"""Keeps what was ranked, and from which features, so that it can be learned from.

A ranking gives one row to a queue and never waits: a thread writes the rows to Parquet files. Under
load, or on a full disk, rows are dropped and counted; calls are answered all the same.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from rankloom_ranker.served import KEY_BYTES, KEY_FILE, ServedRanking, served_table
from rankloom_server import logs
from rankloom_server.config import LearningSettings
from rankloom_server.errors import StartError

MAX_WAITING: Final = 1_000  # rankings that wait for the thread
FILE_BYTES: Final = 16 << 20  # of features, in a file
FILE_S: Final = 60.0  # after which a file is written with what there is
SUFFIX: Final = ".parquet"
_UNFINISHED: Final = ".begun"


class ServedLog:
    """Writes rankings to a folder of at most ``max_bytes``: the oldest files go first.

    A killed process loses what it ranked in its last FILE_S seconds. ``key``: of the folder, for
    the digests of users. Thread-safe.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises StartError where the folder cannot be written."""
        self.num_dropped = self.num_written = 0
        self._folder, self._max_bytes = folder, max_bytes
        self._waiting: queue.Queue[ServedRanking | None] = queue.Queue(MAX_WAITING)
        self.key = _prepared(folder)
        self._thread = threading.Thread(target=self._run, name="rankloom-served-log", daemon=True)
        self._thread.start()

    def offer(self, ranking: ServedRanking) -> None:
        """Takes a ranking, or drops it if too many wait. Never blocks."""
        try:
            self._waiting.put_nowait(ranking)
        except queue.Full:
            self.num_dropped += 1

    def close(self) -> None:
        """Writes what waits."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            rankings, is_open = self._next_file()
            if rankings:
                self._write(rankings)

    def _next_file(self) -> tuple[list[ServedRanking], bool]:
        """The rankings of one file; False once the log is closed."""
        rankings, num_bytes, until = list[ServedRanking](), 0, time.monotonic() + FILE_S
        while num_bytes < FILE_BYTES:
            try:
                ranking = self._waiting.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return rankings, True
            if ranking is None:
                return rankings, False
            rankings.append(ranking)
            num_bytes += ranking.features.nbytes
        return rankings, True

    def _write(self, rankings: Sequence[ServedRanking]) -> None:
        path = self._folder / f"served-{time.time_ns()}-{os.getpid()}{SUFFIX}"
        begun = path.with_name(path.name + _UNFINISHED)
        try:
            pq.write_table(served_table(rankings), begun, compression="zstd")
            begun.replace(path)
            self.num_written += len(rankings)
            self._remove_oldest()
        except Exception as error:  # whatever it is, the next file may be written
            self.num_dropped += len(rankings)
            begun.unlink(missing_ok=True)
            logs.fault("served_log_failed", error)

    def _remove_oldest(self) -> None:
        files = sorted(self._folder.glob(f"served-*{SUFFIX}"))
        sizes = [file.stat().st_size for file in files]
        total = sum(sizes)
        for file, size in zip(files[:-1], sizes, strict=False):
            if total <= self._max_bytes:
                return
            file.unlink(missing_ok=True)
            total -= size


@contextmanager
def opened_log(settings: LearningSettings) -> Iterator[ServedLog | None]:
    """The log, if there is a folder for it. Raises StartError."""
    if settings.log_served is None:
        yield None
        return
    log = ServedLog(settings.log_served, settings.log_served_mib << 20)
    try:
        yield log
    finally:
        log.close()


def _prepared(folder: Path) -> bytes:
    """The key of a folder that can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"served-*{_UNFINISHED}"):
            left.unlink(missing_ok=True)
        probe = folder / f"served-probe{_UNFINISHED}"
        probe.touch()
        probe.unlink()
        return _key(folder / KEY_FILE)
    except OSError as error:
        remedy = "give a folder that this process may write to"
        raise StartError(f"log_served: {folder}: {error.strerror}; {remedy}") from error


def _key(path: Path) -> bytes:
    """What is in the file, or a new one. Raises StartError and OSError."""
    if not path.exists():
        begun = path.with_name(f"served-key{_UNFINISHED}")
        begun.touch(0o600)
        with begun.open("wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())  # or the name may be durable before the key
        begun.replace(path)
    if len(key := path.read_bytes()) != KEY_BYTES:
        raise StartError(f"log_served: {path}: is no key; restore it, or give an empty folder")
    return key
