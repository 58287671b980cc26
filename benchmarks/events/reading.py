"""A process that opens a store and reads histories; its memory is that of nothing else.

    python -m benchmarks.events.reading STORE USERS READS

It prints JSON: seconds to the first history, MiB before and after, milliseconds of each read, and
of a bare SELECT of other users' rows in turns with it.
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
    bare = bare_reader(path)
    reads = {"read_ms": store.history, "version_ms": store.version, "bare_ms": bare}
    times: dict[str, list[float]] = {name: [] for name in reads}
    for number, user in enumerate(users):  # each user is read in one way: a second read finds pages
        name = tuple(reads)[number % len(reads)]
        times[name].append(milliseconds(reads[name], user))
    print(json.dumps({**found, **times, "after_mib": rss_mib()}))


def milliseconds(read: Callable[[str], object], user: str) -> float:
    began = time.perf_counter()
    read(user)
    return 1_000 * (time.perf_counter() - began)


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
