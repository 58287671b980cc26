"""Writers of an event store that are killed at a random moment.

Each line of standard input starts a writer, by a fork, which saves the imports. It is killed some
milliseconds after it has acknowledged a number of writes:

    ["FOLDER/FILE", "append" or "forget", FIRST, ACKNOWLEDGED, MILLISECONDS]

The line of JSON that answers is the number of the last write that it acknowledged.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from feature_service.event_store.made import made
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import UserEvent


def events_of(write: int) -> list[UserEvent]:
    """What one call appends: an event of all writes' user, and two of one's own."""
    return [
        made(f"shared {write}", "shared", f"i{write}"),
        *(made(f"own {number}", user_of(write), f"i{number}") for number in range(2)),
    ]


def user_of(write: int) -> str:
    return f"user-{write:05d}"


def write_on(path: Path, what: str, first: int, out: int) -> None:
    """Writes until it is killed, and acknowledges each write."""
    store = SqliteEventStore(path)
    for write in range(first, 1 << 20):
        if what == "append":
            store.append(events_of(write))
        else:
            store.forget(user_of(write))
        os.write(out, f"{write}\n".encode())


def killed(path: Path, what: str, first: int, acknowledged: int, milliseconds: float) -> int:
    """The number of the last acknowledged write of a writer that was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        write_on(path, what, first, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        seen = [int(lines.readline()) for _ in range(acknowledged)]
        time.sleep(milliseconds / 1_000)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen += [int(line) for line in lines if line.endswith("\n")]
    return seen[-1]


if __name__ == "__main__":
    for line in sys.stdin:
        file, *arguments = json.loads(line)
        print(json.dumps(killed(Path(file), *arguments)), flush=True)
