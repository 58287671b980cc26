"""kill -9 while events are appended and users forgotten: what was acknowledged holds."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from feature_service.event_store import killed
from feature_service.event_store.killed import events_of, user_of
from feature_service.event_store.made import items_of
from rankloom_features.event_store.sqlite import SqliteEventStore

NUM_KILLS = 20
Killed = Callable[[str, int], int]  # what, first write → last acknowledged write


@pytest.fixture
def killed_while(path: Path) -> Iterator[Killed]:
    """Starts a writer, and kills it between two acknowledgements."""
    command = [sys.executable, str(killed.__file__)]
    moments = random.Random(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin
        assert process.stdout

        def kill(what: str, first: int) -> int:
            assert process.stdin
            assert process.stdout
            case = [str(path), what, first, moments.randint(1, 3), moments.uniform(0.0, 8.0)]
            print(json.dumps(case), file=process.stdin, flush=True)
            return int(json.loads(process.stdout.readline()))

        yield kill
        process.stdin.close()


def test_no_acknowledged_event_is_lost_or_doubled(path: Path, killed_while: Killed) -> None:
    first = 0
    for _ in range(NUM_KILLS):
        last = killed_while("append", first)
        with closing(SqliteEventStore(path)) as store:
            shared = Counter(items_of(store, "shared"))
            assert set(shared) - {f"i{last + 1}"} == {f"i{write}" for write in range(last + 1)}
            assert set(shared.values()) == {1}
            for write in range(first, last + 2):
                expected = ["i0", "i1"] if f"i{write}" in shared else []
                assert items_of(store, user_of(write)) == expected
            store.append(events_of(last + 1))  # as a caller does that got no answer
            assert items_of(store, "shared").count(f"i{last + 1}") == 1
        first = last + 2
    assert first > NUM_KILLS


def test_no_forgotten_user_comes_back(path: Path, killed_while: Killed) -> None:
    users = range(2_000)
    with closing(SqliteEventStore(path)) as store:
        store.append([event for write in users for event in events_of(write)])
    first = 0
    for _ in range(NUM_KILLS):
        last = killed_while("forget", first)
        with closing(SqliteEventStore(path)) as store:
            content = b"".join(file.read_bytes() for file in path.parent.iterdir())
            for write in range(last + 1):
                assert items_of(store, user_of(write)) == []
                assert user_of(write).encode() not in content
            assert items_of(store, user_of(last + 1)) in ([], ["i0", "i1"])
            store.forget(user_of(last + 1))
            assert items_of(store, user_of(last + 2)) == ["i0", "i1"]
        first = last + 2
    with closing(SqliteEventStore(path)) as store:
        assert store.statistics().num_users == len(users) - first + 1
