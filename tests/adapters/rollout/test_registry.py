"""Acknowledged commands survive; altered rows are found."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.rollout.commands import command, states
from rankloom_adapters.rollout.registry import Registry, RegistryError
from rankloom_adapters.rollout.states import RolloutError, RolloutState, Verb

_NUM = 40
_WRITER = """
import sys
from pathlib import Path
from rankloom_adapters.rollout.registry import Registry
from rankloom_adapters.rollout.states import RolloutCommand, Verb
with Registry(Path(sys.argv[1])) as registry:
    while True:
        number = len(registry.ledger.rollouts)
        registry.carry_out(RolloutCommand(Verb.STAGE, 0, 0, f"key-{number}", bundle_digest="d"))
        print(number + 1, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite"


def fill(path: Path) -> None:
    """Revision 1 active, 2 a canary."""
    with Registry(path) as registry:
        for verb, number, expected, percent in (
            (Verb.STAGE, 0, 0, 0),
            (Verb.WARM, 1, 0, 0),
            (Verb.PROMOTE, 1, 0, 0),
            (Verb.STAGE, 0, 1, 0),
            (Verb.WARM, 2, 1, 0),
            (Verb.CANARY, 2, 1, 25),
        ):
            registry.carry_out(command(verb, number, expected, percent=percent))


def test_what_was_carried_out_is_there_again(path: Path) -> None:
    fill(path)
    with Registry(path) as registry:
        assert states(registry.ledger) == {1: RolloutState.ACTIVE, 2: RolloutState.CANARY}
        assert registry.ledger.rollout(2).percent == 25


def test_a_refused_command_is_not_written(path: Path) -> None:
    fill(path)
    with Registry(path) as registry, pytest.raises(RolloutError):
        registry.carry_out(command(Verb.RETIRE, 1, 1))
    with Registry(path) as registry:
        assert states(registry.ledger) == {1: RolloutState.ACTIVE, 2: RolloutState.CANARY}


def test_a_repeated_command_is_acknowledged_and_written_once(path: Path) -> None:
    fill(path)
    promote = command(Verb.PROMOTE, 2, 1)
    for _ in range(2):
        with Registry(path) as registry:
            assert registry.carry_out(promote).state is RolloutState.ACTIVE
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM commands").fetchone()
    assert rows == (7,)


def test_a_second_writer_is_refused(path: Path) -> None:
    with Registry(path), pytest.raises(RegistryError, match="another server writes it"):
        Registry(path)
    Registry(path).close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE commands SET body = replace(body, '25', '99') WHERE number = 6",
        "UPDATE commands SET checksum = 'x' WHERE number = 2",
        "DELETE FROM commands WHERE number = 3",
        "UPDATE commands SET number = 10 WHERE number = 6",
        "DELETE FROM commands WHERE number = 6",
        "DELETE FROM commands",
        "DELETE FROM sqlite_sequence",
    ],
)
def test_rows_that_were_touched_are_found(path: Path, damage: str) -> None:
    fill(path)
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(RegistryError, match="was altered or lost"):
        Registry(path)


def test_a_lost_table_is_found(path: Path) -> None:
    fill(path)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE commands")
    db.close()
    with pytest.raises(RegistryError, match="is damaged: no such table"):
        Registry(path)


def test_a_flipped_byte_is_found_or_without_meaning(path: Path) -> None:
    fill(path)
    whole = path.read_bytes()
    with Registry(path) as registry:
        expected = registry.ledger
    num_found = 0
    for index in range(0, len(whole), 7):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x55]) + whole[index + 1 :])
        try:
            with Registry(path) as registry:
                assert registry.ledger == expected
        except RegistryError:
            num_found += 1
    assert num_found


@pytest.mark.parametrize("content", [b"no database at all", b"\0" * 8192])
def test_another_file_is_no_registry(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RegistryError, match="registry"):
        Registry(path)


def test_a_registry_of_a_later_version_is_refused(path: Path) -> None:
    fill(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=3")
    db.close()
    with pytest.raises(RegistryError, match="format 3, this version reads format 2; use a newer"):
        Registry(path)


def write_format_1(path: Path) -> None:
    """A registry as format 1 wrote it: the field was called `generation`."""
    body = json.dumps(
        {
            "verb": "stage", "generation": 0, "expected": 0, "key": "k", "percent": 0,
            "bundle_digest": "d", "reason": "", "gates": "", "forced": False,
        },
        sort_keys=True,
    )  # fmt: skip
    root = hashlib.sha256(b"rankloom rollout registry 1").hexdigest()
    checksum = hashlib.sha256(f"{root}\n{body}".encode()).hexdigest()
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE commands (number INTEGER PRIMARY KEY AUTOINCREMENT, "
            "time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, body TEXT NOT NULL, "
            "checksum TEXT NOT NULL)"
        )
        db.execute("PRAGMA user_version=1")
        db.execute("INSERT INTO commands (body, checksum) VALUES (?, ?)", (body, checksum))
    db.close()


def test_an_older_registry_is_refused_with_what_to_do_and_never_altered(path: Path) -> None:
    write_format_1(path)
    before, modified = path.read_bytes(), path.stat().st_mtime_ns
    for _ in range(2):
        with pytest.raises(RegistryError) as caught:
            Registry(path)
        assert str(caught.value) == (
            f"{path}: format 1, this version reads format 2; start with a new, empty state folder"
        )
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, modified)
    assert list(path.parent.iterdir()) == [path]


def test_where_a_bundle_came_from_is_not_the_reason(path: Path) -> None:
    staged = command(Verb.STAGE, bundle_digest="d", origin="s3://bucket/bundle")
    with Registry(path) as registry:
        assert registry.carry_out(staged).reason == ""
    with Registry(path) as registry:
        kept, _ = registry.ledger.commands[staged.key]
        assert (kept.origin, kept.reason) == ("s3://bucket/bundle", "")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nowhere"):
        Registry(tmp_path / "nowhere" / "registry.sqlite")


def test_after_a_failed_write_nothing_more_is_written(path: Path) -> None:
    fill(path)
    with Registry(path) as registry:
        registry._db.execute("PRAGMA query_only=1")  # like a disk that became read-only
        with pytest.raises(RegistryError, match="cannot be written"):
            registry.carry_out(command(Verb.PROMOTE, 2, 1))
        registry._db.execute("PRAGMA query_only=0")
        with pytest.raises(RegistryError, match="must be started again"):
            registry.carry_out(command(Verb.PROMOTE, 2, 1))
        assert registry.ledger.active == 1
    with Registry(path) as registry:
        assert registry.ledger.active == 1


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(_NUM)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()
        with Registry(path) as registry:
            assert len(registry.ledger.rollouts) in (acknowledged[-1], acknowledged[-1] + 1)
