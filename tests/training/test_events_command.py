"""`rankloom events`, run as its entry point is."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow.csv
import pytest

from feature_service.event_store.made import items_of, made
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_training.events_command import EventsCommand

ROWS = "user_id,item_id,liked,time\nu,first,1,10\nu,second,0,20.5\nv,first,1,30\n"
RUN = """
import argparse, sys
from rankloom_training.events_command import events
parser = argparse.ArgumentParser()
events.configure(parser)
sys.exit(events.run(parser.parse_args(sys.argv[1:])))
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; returns exit code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        parser = argparse.ArgumentParser("rankloom events")
        command = EventsCommand()
        command.configure(parser)
        try:
            code = command.run(parser.parse_args(list(map(str, words))))
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "events.sqlite"


def test_events_go_in_and_out(run: Run, store: Path, file: Path, tmp_path: Path) -> None:
    code, out, _ = run("import", store, file)
    assert (code, out) == (0, f"{file}: 3 events stored, 0 known already\n")
    code, out, _ = run("import", store, file)
    assert (code, out) == (0, f"{file}: 0 events stored, 3 known already\n")
    code, out, _ = run("export", store, tmp_path / "out.csv")
    assert (code, out) == (0, f"{tmp_path}/out.csv: 3 events\n")
    assert pyarrow.csv.read_csv(tmp_path / "out.csv").num_rows == 3


def test_stats_count(run: Run, store: Path, file: Path) -> None:
    run("import", store, file)
    code, out, _ = run("stats", store)
    assert code == 0
    assert out.startswith(f"{store}: 3 events of 2 users, ")
    code, out, _ = run("stats", store, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["num_events"], found["num_users"], found["position"]) == (3, 2, 3)
    assert found["num_bytes"] >= store.stat().st_size


def test_forgotten_users_are_gone_and_not_named(run: Run, store: Path, file: Path) -> None:
    run("import", store, file)
    code, out, err = run("forget", store, "u", "user-nobody-knows")
    assert code == 0
    assert out == f"{store}: 1 users and their 2 events are gone\n"
    assert "user-nobody-knows" not in out + err
    with closing(SqliteEventStore(store)) as opened:
        assert list(opened.users()) == ["v"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["stats", "none.sqlite"], 2, "none.sqlite: no such event store; give the file that"),
        (["forget", "none.sqlite", "u"], 2, "none.sqlite: no such event store"),
        (["export", "none.sqlite", "o.csv"], 2, "none.sqlite: no such event store"),
        (["import", "e.sqlite", "none.csv"], 2, "none.csv: no such file; check the path"),
        (["import", "e.sqlite", "rows.txt"], 2, "rows.txt: must end with .parquet, .csv"),
        (["import", "none/e.sqlite", "rows.csv"], 1, "cannot be opened; check that its folder"),
        (["import", "rows.txt", "rows.csv"], 1, "rows.txt: is not an event store; give"),
        (["export", "e.sqlite", "out.json"], 2, "out.json: must end with .parquet, .csv"),
        (["export", "e.sqlite", "none/out.csv"], 2, "none: no such folder; create it first"),
        (["import", "e.sqlite", "bad.csv"], 2, "bad.csv: lacks the column user_id; events have"),
        (["forget", "e.sqlite"], 2, "arguments are required: USER"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, file: Path, words: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(file.parent)
    Path("rows.txt").write_text("a file of another kind" * 100, encoding="utf-8")
    Path("bad.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n", encoding="utf-8")
    found, _, err = run(*words)
    assert found == code
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_ctrl_c_says_that_the_command_goes_on(store: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.csv"
    rows = "".join(f"u{row},i,1,{row}\n" for row in range(400_000))
    many.write_text(f"user_id,item_id,liked,time\n{rows}", encoding="utf-8")
    command = [sys.executable, "-c", RUN, "import", str(store), str(many)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while not store.exists() or not _num_events(store):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert err.endswith("interrupted; what is done stays, and the same command goes on\n")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "known already" in done.stdout
    assert _num_events(store) == 400_000


def _num_events(path: Path) -> int:
    with closing(SqliteEventStore(path)) as store:
        return store.statistics().num_events


def test_live_events_stay_beside_imported_ones(run: Run, store: Path, file: Path) -> None:
    with closing(SqliteEventStore(store)) as opened:
        opened.append([made("live", "u", "live", 15.0)])
        run("import", store, file)
        assert items_of(opened, "u") == ["first", "live", "second"]
