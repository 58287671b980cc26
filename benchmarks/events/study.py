"""Measures an event store beside bare SQLite and the disk itself."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.children import run_case
from benchmarks.common.timing import Cost, interleaved, progress
from benchmarks.events.generated import NUM_ITEMS, START_S, generate, user_id
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import StoreStatistics, UserEvent
from rankloom_features.events import Event

BATCH = 1_000  # events of one call
BATCHES = 10  # per round: so many bring the write-ahead log into the file about once
THREADS = 8
SINGLE = 200  # calls with one event, per round
ROUNDS = 5
READS = 6_000
FORGOTTEN = 5


@dataclass(frozen=True, slots=True)
class EventStudy:
    """``reading``: what benchmarks.events.reading printed. ``costs``: of each round, by name."""

    generated_s: float
    statistics: StoreStatistics
    statistics_s: float
    reading: dict[str, Any]
    costs: dict[str, list[Cost]]
    forget_s: Sequence[float]


def run_event_study(folder: Path, num_users: int, num_events: int) -> EventStudy:
    """Raises CaseError if the reading process fails."""
    path = folder / "events.sqlite"
    generated_s = _seconds(lambda: generate(path, num_users, num_events))
    progress(f"generated in {generated_s:.0f} s")
    forget_pages(path)
    reading = run_case("benchmarks.events.reading", [str(path), str(num_users), str(READS)])
    progress("read")
    with closing(SqliteEventStore(path)) as store:
        began = time.perf_counter()
        statistics = store.statistics()
        statistics_s = time.perf_counter() - began
        costs = _writing(store, folder, num_users)
        users = map(user_id, random.Random(1).sample(range(num_users), FORGOTTEN))
        forget_s = [_seconds(lambda user=user: store.forget(user)) for user in users]  # type: ignore[misc]
    return EventStudy(generated_s, statistics, statistics_s, reading, costs, forget_s)


def forget_pages(path: Path) -> None:
    """Takes the file out of the kernel's memory, so that reads go to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _writing(store: SqliteEventStore, folder: Path, num_users: int) -> dict[str, list[Cost]]:
    """Batches and single events, each beside the least that it could take."""
    events = EventMaker(num_users)
    with closing(_bare_table(folder / "bare.sqlite")) as bare, ThreadPoolExecutor(THREADS) as pool:
        works: dict[str, Callable[[], object]] = {
            "store": lambda: [store.append(events.some(BATCH)) for _ in range(BATCHES)],
            "bare": lambda: _insert_all(bare, [events.some(BATCH) for _ in range(BATCHES)]),
            "making": lambda: [events.some(BATCH) for _ in range(BATCHES)],
            "threads": lambda: list(pool.map(store.append, events.single(SINGLE))),
            "one_thread": lambda: list(map(store.append, events.single(SINGLE))),
            "fsync": lambda: _sync_often(folder / "synced", SINGLE),
        }
        return interleaved(works, ROUNDS, "writing")


class EventMaker:
    """New events of random users, at about the same time."""

    def __init__(self, num_users: int) -> None:
        self._dice, self._made, self._num_users = np.random.default_rng(2), 0, num_users

    def some(self, count: int) -> list[UserEvent]:
        users = self._dice.integers(0, self._num_users, count).tolist()
        items = self._dice.integers(0, NUM_ITEMS, count).tolist()
        self._made += count
        return [
            UserEvent(f"{self._made}/{row}", user_id(user), _event(item))
            for row, (user, item) in enumerate(zip(users, items, strict=True))
        ]

    def single(self, calls: int) -> list[list[UserEvent]]:
        return [self.some(1) for _ in range(calls)]


def _event(item: int) -> Event:
    return Event(f"item-{item}", True, float(START_S + 2 * 10**7))


def _bare_table(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
        db.execute(statement)
    db.execute("CREATE TABLE events (id TEXT, user TEXT, item TEXT, liked INTEGER, time REAL)")
    return db


def _insert(db: sqlite3.Connection, events: Sequence[UserEvent]) -> None:
    """Appends rows to a table without keys: SQLite's least."""
    rows = [
        (each.event_id, each.user_id, each.event.item_id, each.event.liked, each.event.time)
        for each in events
    ]
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    db.execute("COMMIT")


def _insert_all(db: sqlite3.Connection, batches: Sequence[Sequence[UserEvent]]) -> None:
    for batch in batches:
        _insert(db, batch)


def _sync_often(path: Path, times: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
