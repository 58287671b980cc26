"""Results of benchmarks: their files, the README's tables, and the commands' arguments."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.common.machine import ROOT, commit, machine, versions
from benchmarks.common.results import RESULTS, BenchmarkResult, RunFacts, newest, read, write
from benchmarks.common.timing import Spread

from benchmarks import render

ROOMS = (
    *("engine", "engine.padding", "serve", "overload", "explain", "swap", "kills", "canary"),
    *("training", "stages", "domains", "events", "replay", "faults", "prefilter", "stored"),
)


def result(date: str = "2026-11-29T10:00:00+00:00", kills: int = 3) -> BenchmarkResult:
    start_s = {"median": 4.0, "least": 3.0, "most": 5.0, "over": 0}
    return BenchmarkResult(
        room="kills",
        facts=RunFacts(
            date=date,
            commit="abc1234",
            machine={"cpu": "Some CPU @ 2.00GHz", "cores": 2, "flags": ["avx2"]},
            versions={"python": "3.11.7"},
        ),
        dtype="float32",
        settings={"kills": kills},
        figures={"kills": kills, "lost": 0, "acknowledged": 1234, "start_s": start_s},
    )


def test_the_readme_has_the_newest_results() -> None:
    text = render.README.read_text(encoding="utf-8")
    assert text == render.rendered(text, RESULTS), "run python -m benchmarks.render"


def test_every_room_has_a_result_and_markers() -> None:
    text = render.README.read_text(encoding="utf-8")
    for room, summary in render.SUMMARIES.items():
        found = newest(room)
        assert found is not None, room
        assert found.room == room
        assert summary(found) in text


def test_every_result_is_complete_and_can_be_shown() -> None:
    for path in RESULTS.rglob("*.json"):
        found = read(path)
        assert path.parent.name == found.room
        assert path.name.startswith(f"{found.facts.date[:10]}-{found.facts.commit}-")
        assert found.dtype in ("float32", "bfloat16")
        assert found.transcribed == bool(found.source), "a copied result names its source"
        assert render.show(path) is None


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write(result(), tmp_path)
    assert path == tmp_path / "kills" / "2026-11-29-abc1234-some-cpu-2-00ghz.json"
    assert read(path) == result()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.keys() >= {"machine", "versions", "commit", "date", "dtype", "settings"}


def test_a_result_never_replaces_another(tmp_path: Path) -> None:
    paths = [write(result(kills=kills), tmp_path) for kills in (1, 2)]
    assert [read(path).figures["kills"] for path in paths] == [1, 2]


def test_the_newest_result_has_the_latest_date(tmp_path: Path) -> None:
    assert newest("kills", tmp_path) is None
    write(result("2026-11-29T11:00:00+02:00", kills=1), tmp_path)
    write(result("2026-11-29T10:00:00+00:00", kills=2), tmp_path)
    found = newest("kills", tmp_path)
    assert found is not None
    assert found.figures["kills"] == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"date": 1}'])
def test_a_file_that_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json is not a result"):
        read(path)
    assert "is not a result" in (render.show(path) or "")


def test_a_table_stands_between_its_markers(tmp_path: Path) -> None:
    write(result(kills=7), tmp_path)
    text = "".join(f"<!-- {room} -->\nold\n<!-- /{room} -->\n" for room in ("swap", "kills"))
    found = render.rendered(text, tmp_path)
    assert found.startswith("<!-- swap -->\nold\n<!-- /swap -->\n<!-- kills -->\n| kill -9")
    assert "| kills | 7 | |" in found
    assert "float32; 2026-11-29, commit abc1234; Some CPU @ 2.00GHz, 2 cores (avx2)" in found
    assert found.endswith("\n<!-- /kills -->\n")
    assert render.rendered(found, tmp_path) == found
    with pytest.raises(ValueError, match="no markers for kills"):
        render.rendered("nothing", tmp_path)


def test_the_facts_of_a_run_are_complete() -> None:
    assert machine().keys() == {"cpu", "cores", "flags", "load_1min"}
    assert versions().keys() >= {"python", "torch", "onnxruntime", "rankloom"}
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?|unknown", commit())


def test_a_spread_has_least_median_and_most() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(1.0, 2.0, 3.0)


@pytest.mark.parametrize("room", ROOMS)
def test_help_says_what_is_measured(room: str) -> None:
    done = run(room, "--help")
    assert done.returncode == 0
    assert f"usage: python -m benchmarks.{room} " in done.stdout
    assert "--results FOLDER" in done.stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("engine --rounds 0", "'0': must be a whole number, at least 1"),
        ("engine --rounds few", "'few': must be a whole number, at least 1"),
        ("engine --models S,XL", "no such model: XL; known: S, L4, L"),
        ("engine --dtype fp8", "choose from"),
        ("engine --results no-such-folder", "no such folder: no-such-folder; create it first"),
        ("serve --seconds nan", "'nan': must be a positive number of seconds"),
        ("swap --bundle docs", "no bundle in docs; name a folder with manifest.json"),
        ("kills --bundle docs", "no bundle in docs; name a folder with manifest.json"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_to_do(command: str, message: str) -> None:
    done = run(*command.split())
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("room", ["collaborative", "user_model"])
def test_a_log_that_cannot_be_read_gives_no_traceback(room: str, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    done = run(room, "--data", str(folder))
    assert done.returncode == 1
    assert done.stderr == f"error: {folder}: no such folder; pass the folder that holds the log\n"


def test_ctrl_c_prints_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.engine.padding", "--results", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    assert "round 1" in process.stderr.readline()  # a case runs in a process of its own
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted: no result was written\n"
    assert list(tmp_path.iterdir()) == []


def run(room: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{room}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
