"""The event store in a file: other processes, forgetting to the byte, and what can go wrong."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from feature_service.event_store.made import items_of, made
from rankloom_features.event_store import sqlite_file
from rankloom_features.event_store.keys import id_of, key_of, partition_of
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import (
    EventStoreDamagedError,
    EventStoreError,
    EventStoreFullError,
)

_APPENDER = """
import sys
from pathlib import Path
from feature_service.event_store.made import items_of, made
from rankloom_features.event_store.sqlite import SqliteEventStore
store, name = SqliteEventStore(Path(sys.argv[1])), sys.argv[2]
for step in range(20):
    store.append([made(f"{name}-{step}", "shared", f"{name}-{step}"), made("x", f"{name}-{step}")])
    assert f"{name}-{step}" in items_of(store, "shared")
store.close()
"""
_READ_ONLY = """
import sys
from pathlib import Path
from feature_service.event_store.made import items_of, made
from rankloom_features.event_store.sqlite import SqliteEventStore
store = SqliteEventStore(Path(sys.argv[1]))
print(items_of(store))
store.append([made("b")])
"""


_IMPORTS: Final = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # for child processes


def in_namespace(shell: str, *arguments: object) -> str:
    """Runs a shell in which this process may mount; returns its output and errors."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", shell, "bash"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=_IMPORTS
    )
    return done.stdout + done.stderr


needs_mounts = pytest.mark.skipif(
    "may mount" not in in_namespace("mount -t tmpfs none /mnt && echo may mount"),
    reason="this machine lets no process mount a file system of its own",
)


def bytes_of(folder: Path) -> bytes:
    """All that stands in the files, without long rows of zeros, which take time to search."""
    content = b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
    return content.replace(bytes(64), b"")


def test_an_event_whose_item_was_lost_is_damage(path: Path) -> None:
    with closing(SqliteEventStore(path)) as store:
        store.append([made("a", item="first")])
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM items")
        db.commit()
    with closing(SqliteEventStore(path)) as store, pytest.raises(EventStoreDamagedError):
        items_of(store)


def test_events_outlive_the_process(path: Path) -> None:
    with closing(SqliteEventStore(path)) as store:
        [position] = store.append([made("a", item="first")])
    with closing(SqliteEventStore(path)) as store:
        assert items_of(store) == ["first"]
        assert store.append([made("b")])[0] > position


def test_positions_go_on_where_all_events_were_forgotten(path: Path) -> None:
    with closing(SqliteEventStore(path)) as store:
        [position] = store.append([made("a")])
        store.forget("u")
    with closing(SqliteEventStore(path)) as store:
        assert store.append([made("a")])[0] > position


def test_processes_share_a_store_that_they_create_at_once(path: Path) -> None:
    command = [sys.executable, "-c", _APPENDER, str(path)]
    children = [subprocess.Popen([*command, name], env=_IMPORTS) for name in ("p", "q", "r")]
    assert [child.wait(120) for child in children] == [0, 0, 0]
    with closing(SqliteEventStore(path)) as store:
        assert len(set(items_of(store, "shared"))) == 60
        assert store.statistics().position == store.statistics().num_events == 120


def test_a_read_sees_what_another_connection_stored(path: Path) -> None:
    with closing(SqliteEventStore(path)) as one, closing(SqliteEventStore(path)) as other:
        assert other.version("u") == 0
        [position] = one.append([made("a", item="first")])
        assert (other.version("u"), items_of(other)) == (position, ["first"])


def test_an_event_id_made_of_a_key_gives_the_key(path: Path) -> None:
    key = key_of("any id")
    assert key_of(id_of(key)) == key
    assert key_of("digest:" + "é" * 32) != key_of("digest:" + "f" * 31)
    with closing(SqliteEventStore(path)) as store:
        assert store.append([made("any id")]) == store.append([made(id_of(key))])


@pytest.mark.parametrize("time", [None, float("nan"), float("inf")])
def test_an_event_without_a_time_is_refused(path: Path, time: float) -> None:
    with closing(SqliteEventStore(path)) as store:
        with pytest.raises(ValueError, match="needs a finite time"):
            store.append([made("a"), made("b", time=time)])
        assert items_of(store) == []


def test_an_id_that_is_not_text_is_refused(path: Path) -> None:
    with closing(SqliteEventStore(path)) as store:
        for event in (made("\ud800"), made("a", user="\ud800"), made("a", item="\ud800")):
            with pytest.raises(ValueError, match="surrogates"):
                store.append([event])


def grow(store: SqliteEventStore, users: Iterable[str], rounds: int) -> None:
    """Rows come in random order, so that pages split and rows move between them."""
    order = random.Random(7)
    events = [made(f"{user}/{step}", user) for user in users for step in range(rounds)]
    order.shuffle(events)
    for start in range(0, len(events), 500):
        store.append(events[start : start + 500])


def users_of_a_partition(partition: int, count: int) -> list[str]:
    users = (f"user-{number:06x}" for number in itertools.count())
    return list(itertools.islice((u for u in users if partition_of(u) == partition), count))


def test_a_forgotten_user_stands_in_no_file(path: Path) -> None:
    """SQLite alone would leave copies of rows in pages that they were moved out of."""
    users = users_of_a_partition(3, 150)
    gone = users[::5]
    with closing(SqliteEventStore(path)) as store:
        grow(store, users, 40)
        assert all(user.encode() in bytes_of(path.parent) for user in gone)
        for user in gone:
            assert store.forget(user) == 40
            content = bytes_of(path.parent)
            assert user.encode() not in content
            assert not [step for step in range(40) if key_of(f"{user}/{step}") in content]
            store.append([made(f"after {user}", "somebody else")])
        assert {len(items_of(store, user)) for user in set(users) - set(gone)} == {40}


def test_forgetting_says_who_keeps_old_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rankloom_features.event_store import sqlite as module

    monkeypatch.setattr(module, "BUSY_S", 0.05)
    with closing(SqliteEventStore(path)) as store:
        store.append([made("a", "user-to-forget")])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM users_0").fetchone()
            with pytest.raises(EventStoreError, match="end it, then forget again"):
                store.forget("user-to-forget")
            assert items_of(store, "user-to-forget") == []
        assert store.forget("user-to-forget") == 0
        assert b"user-to-forget" not in bytes_of(path.parent)


def test_a_store_that_was_left_with_a_log_is_opened_without_it(path: Path) -> None:
    with closing(SqliteEventStore(path)) as left:
        left.append([made("a")])
        log = path.with_name(f"{path.name}-wal")
        assert log.stat().st_size
        with closing(SqliteEventStore(path)):
            assert not log.stat().st_size


def test_a_busy_store_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.05)
    with closing(SqliteEventStore(path)) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(EventStoreError, match="another process has kept it locked"):
                store.append([made("a")])
            assert items_of(store) == []
        store.append([made("a")])


def test_a_full_store_says_so_and_reads_go_on(path: Path) -> None:
    with closing(SqliteEventStore(path)) as store:
        store.append([made("a", item="kept")])
        [pages] = store._writer.execute("PRAGMA page_count").fetchone()
        store._writer.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(EventStoreFullError, match="no room on the disk; free some space"):
            store.append([made(f"b{number}") for number in range(500)])
        assert items_of(store) == ["kept"]  # all or none
        store._writer.execute("PRAGMA max_page_count=1000000")
        store.append([made(f"b{number}") for number in range(500)])
        assert len(items_of(store)) == 501


_FULL_DISK = """
import sys
from pathlib import Path
from feature_service.event_store.made import items_of, made
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import EventStoreFullError
folder = Path(sys.argv[1])
store = SqliteEventStore(folder / "events.sqlite")
(folder / "ballast").write_bytes(bytes(1 << 20))
stored = 0
try:
    while True:
        store.append([made(f"{stored}/{each}", f"u{stored}") for each in range(50)])
        stored += 1
except EventStoreFullError as error:
    print(error)
assert store.statistics().num_events == 50 * stored > 0
(folder / "ballast").unlink()
store.append([made("more", "u0")])
assert len(items_of(store, "u0")) == 51
print("went on")
"""


@needs_mounts
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    shell = 'mount -t tmpfs -o size=10m none "$1" && exec "$2" -c "$3" "$1"'
    output = in_namespace(shell, tmp_path, sys.executable, _FULL_DISK)
    assert "events.sqlite: no room on the disk; free some space" in output
    assert output.endswith("went on\n")


@needs_mounts
def test_a_read_only_disk_is_read(path: Path) -> None:
    with closing(SqliteEventStore(path)) as store:
        store.append([made("a", item="first")])
    shell = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3" "$4"'
    output = in_namespace(shell, path.parent, sys.executable, _READ_ONLY, path)
    assert output.startswith("['first']\n")
    assert "EventStoreError" in output
    assert "cannot be written; make the file and its folder writable" in output


def test_a_damaged_page_hurts_its_users_alone(path: Path) -> None:
    users = [f"u{number}" for number in range(200)]
    with closing(SqliteEventStore(path)) as store:
        store.append([made("a", user) for user in users])
        [page] = store._writer.execute(
            f"SELECT rootpage FROM sqlite_schema WHERE name = 'events_{partition_of('u7')}'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 4096)
    with closing(SqliteEventStore(path)) as store:
        with pytest.raises(EventStoreError, match="a page is damaged; restore a backup") as caught:
            store.history("u7")
        assert str(path) in str(caught.value)
        for user in users:
            if partition_of(user) != partition_of("u7"):
                assert items_of(store, user) == ["i"]
        store.append([made("b", "u8")])


@pytest.mark.parametrize("content", [b"no database at all" * 300, b"\1" * 8192])
def test_another_file_is_no_event_store(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(EventStoreError, match=r"events\.sqlite: is not an event store; give"):
        SqliteEventStore(path)
    assert path.read_bytes() == content


def test_another_database_is_no_event_store(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE commands (number INTEGER)")
    with pytest.raises(EventStoreError, match=r"events\.sqlite: is not an event store; give"):
        SqliteEventStore(path)


def test_a_store_of_a_later_version_is_refused(path: Path) -> None:
    SqliteEventStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=2")
    with pytest.raises(EventStoreError, match="format 2, this version reads format 1; use a newer"):
        SqliteEventStore(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventStoreError, match=r"none/e\.sqlite: cannot be opened; check that its"):
        SqliteEventStore(tmp_path / "none" / "e.sqlite")


def test_a_name_with_signs_of_an_address_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&b#c %20.sqlite"
    SqliteEventStore(path).close()
    assert path.is_file()


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteEventStore(path)
    store.close()
    for use in (lambda: store.history("u"), lambda: store.append([made("a")])):
        with pytest.raises(EventStoreError, match="closed"):
            use()


def test_the_index_after_a_crash_holds_nothing_of_the_process_that_makes_it(
    path: Path, tmp_path: Path
) -> None:
    """SQLite makes it in memory that the process has used before, and maps it to a file."""
    store = SqliteEventStore(path)
    store.append([made("1", "someone", "i0")])
    crashed = tmp_path / "crashed.sqlite"
    log = path.with_name(f"{path.name}-wal").read_bytes()
    shutil.copy(path, crashed)
    store.close()
    crashed.with_name(f"{crashed.name}-wal").write_bytes(log[:56])  # cut within the first page
    used = [b"user-of-before " * 2_400 for _ in range(200)]
    del used
    with closing(SqliteEventStore(crashed)):
        content = b"".join(file.read_bytes() for file in tmp_path.glob("crashed*"))
    assert b"user-of-before" not in content
