from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rankloom_training import progress
from rankloom_training.progress import Progress
from rankloom_training.stages import Workspace, digest_of

MADE_FROM = {"data": "d", "options": {"seed": 0}}
KILLED = """
import os, signal, sys
from pathlib import Path
from rankloom_training.progress import Progress
from rankloom_training.stages import Workspace

def second(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

work = Workspace(Path(sys.argv[1]), {"data": "d", "options": {"seed": 0}}, Progress())
work.stage("first", lambda folder: (folder / "whole").write_text("of the killed run"))
work.stage("second", second)
"""


def writing(text: str, calls: list[str] | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text(text)
        if calls is not None:
            calls.append(text)

    return make


def workspace(folder: Path, made_from: dict[str, object] | None = None) -> Workspace:
    return Workspace(folder, made_from or MADE_FROM, Progress())


def test_a_finished_stage_is_kept(tmp_path: Path) -> None:
    calls: list[str] = []
    first = workspace(tmp_path / "work").stage("one", writing("a", calls))
    again = workspace(tmp_path / "work").stage("one", writing("b", calls))
    assert first == again == tmp_path / "work" / "one"
    assert (first / "whole").read_text() == "a"
    assert calls == ["a"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "unsealed"])
def test_a_finished_stage_that_was_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    def nested(folder: Path) -> None:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("all of it")

    stage = workspace(tmp_path / "work").stage("one", nested)
    match damage:
        case "truncated":
            (stage / "part" / "file").write_text("all")
        case "missing":
            (stage / "part" / "file").unlink()
        case _:
            (tmp_path / "work" / "one.sha256").unlink()
    again = workspace(tmp_path / "work").stage("one", nested)
    assert (again / "part" / "file").read_text() == "all of it"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_is_repeated_and_the_finished_one_kept(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    work = workspace(tmp_path / "work")
    work.stage("one", writing("a"))
    with pytest.raises(error):
        work.stage("two", fail)
    assert not (tmp_path / "work" / "two").exists()
    calls: list[str] = []
    again = workspace(tmp_path / "work")
    assert (again.stage("one", writing("b", calls)) / "whole").read_text() == "a"
    two = again.stage("two", writing("c", calls))
    assert [path.name for path in two.iterdir()] == ["whole"]
    assert calls == ["c"]


def test_a_killed_run_leaves_its_finished_stage(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, folder], check=False, stderr=subprocess.DEVNULL
    )
    assert ended.returncode == -signal.SIGKILL
    assert not (folder / "second").exists()
    work = workspace(folder)
    first = work.stage("first", writing("of this run"))
    assert (first / "whole").read_text() == "of the killed run"
    second = work.stage("second", writing("of this run"))
    assert [path.name for path in second.iterdir()] == ["whole"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["run.json", "first", "first.sha256", "second", "second.sha256"]
    )


@pytest.mark.parametrize("other", [{"data": "e"}, {"options": {"seed": 1}}, {"more": 1}])
def test_other_data_or_options_start_afresh(tmp_path: Path, other: dict[str, object]) -> None:
    workspace(tmp_path / "work").stage("one", writing("a"))
    work = workspace(tmp_path / "work", MADE_FROM | other)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["run.json"]
    assert (work.stage("one", writing("b")) / "whole").read_text() == "b"


def test_a_removed_workspace_is_gone(tmp_path: Path) -> None:
    work = workspace(tmp_path / "deep" / "work")
    work.stage("one", writing("a"))
    work.remove()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_of_other_files_is_not_touched(tmp_path: Path) -> None:
    """A user's own folder may have the workspace's name."""
    precious = tmp_path / "work" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises((ValueError, OSError)):
        workspace(tmp_path / "work")
    assert precious.read_text() == "years of work"


def test_the_digest_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, names in ((one, "ab"), (other, "ba")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    a, b = other / "a", other / "b"
    digest = digest_of([one / "a", one / "b"])
    assert digest == digest_of([b, a])
    a.write_text("A")
    assert digest_of([a, b]) != digest
    a.write_text("a")
    a.rename(other / "c")
    assert digest_of([other / "c", b]) != digest
    (one / "empty").write_text("")
    assert digest_of(list(one.iterdir())) != digest


def test_without_a_terminal_a_long_stage_prints_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress().stage("trees") as stage:
        stage.step(1, 4)
        stage.step(3, 4)
        stage.note("AUC 0.7")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].split() == ["trees", "75", "%", "less", "than", "a", "minute", "left"]
    assert lines[1].split()[2:] == ["s", "AUC", "0.7"]


def test_the_time_left_is_that_of_the_part_which_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with Progress().stage("groups") as stage:
        for done in (1, 2, 3, 4):
            stage.step(done, 4)
        stage.step(1, 10)
        stage.step(2, 10)
    lines = capsys.readouterr().err.splitlines()
    assert "about 2 min left" in lines[0]
    assert "about 8 min left" in lines[-2]
