"""A process that opens a store and reads histories; its memory is that of nothing else.

    python -m benchmarks.events.reading STORE USERS READS

It prints JSON: seconds to the first history, MiB before and after, and of each read milliseconds
on the wall and of CPU; in turns, histories, versions, and a bare SELECT of the user's rows.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.common.timing import rss_mib
from benchmarks.events.generated import user_id
from rankloom_features.event_store.keys import partition_of
from rankloom_features.event_store.sqlite import SqliteEventStore


def main() -> None:
    path, num_users, num_reads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    before, began = rss_mib(), time.perf_counter()
    store = SqliteEventStore(path)
    store.history(user_id(0))
    found = {"start_s": time.perf_counter() - began, "before_mib": before}
    users = [user_id(number) for number in random.Random(0).choices(range(num_users), k=num_reads)]
    reads: dict[str, Callable[[str], object]] = {
        "read_ms": store.history, "version_ms": store.version, "bare_ms": bare_reader(path),
    }  # fmt: skip
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in reads}
    for number, user in enumerate(users):  # each user is read in one way: a second read finds pages
        name = tuple(reads)[number % len(reads)]
        times[name].append(milliseconds(reads[name], user))
    print(json.dumps({**found, **times, "after_mib": rss_mib()}))


def milliseconds(read: Callable[[str], object], user: str) -> tuple[float, float]:
    """On the wall, and of CPU."""
    wall, cpu = time.perf_counter(), time.thread_time()
    read(user)
    return 1_000 * (time.perf_counter() - wall), 1_000 * (time.thread_time() - cpu)


def bare_reader(path: Path) -> Callable[[str], object]:
    """Reads the user's rows as they are, unordered and without the items' ids."""
    db = sqlite3.connect(path, cached_statements=512)

    def read(user: str) -> object:
        number = partition_of(user)
        query = f"SELECT number FROM users_{number} WHERE id = ?"
        found = db.execute(query, (user,)).fetchone()
        return db.execute(f"SELECT * FROM events_{number} WHERE user = ?", found).fetchall()

    return read


if __name__ == "__main__":
    main()
