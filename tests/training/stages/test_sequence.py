"""Stages run once: what an earlier run made from the same is reused."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rankloom_training.checkpoints import Checkpoint
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stages import fingerprint
from rankloom_training.stages.sequence import stages_of
from rankloom_training.stages.stage import StageInputs
from rankloom_training.stages.workspace import MARK, Workspace, WorkspaceError
from training.logs import random_log
from training.stages.toy_stages import FILE, FirstFiles, FirstStage, SecondStage, ran

OPTIONS = TrainOptions()
KILLED = """
import os, signal, sys
from pathlib import Path
from training.stages import toy_stages
from rankloom_training.options import TrainOptions

def killed(self, given):
    (given.folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

toy_stages.SecondStage.run = killed
toy_stages.ran(Path(sys.argv[1]), TrainOptions())
"""


def test_finished_stages_are_reused(tmp_path: Path) -> None:
    assert ran(tmp_path / "work", OPTIONS) == ["first", "second"]
    assert ran(tmp_path / "work", OPTIONS) == []


def test_another_option_repeats_the_stages_that_read_it(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    assert ran(tmp_path, dataclasses.replace(OPTIONS, num_groups=4)) == ["second"]
    assert (tmp_path / "second" / FILE).read_text() == "parity 0, 4 groups"
    assert ran(tmp_path, dataclasses.replace(OPTIONS, num_groups=4, lm_rows=7)) == []


def test_a_stage_is_repeated_if_one_that_it_needs_made_other_files(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    assert ran(tmp_path, dataclasses.replace(OPTIONS, seed=1)) == ["first", "second"]
    assert (tmp_path / "second" / FILE).read_text() == "parity 1, 3 groups"


def test_a_stage_is_reused_if_one_that_it_needs_made_equal_files(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    assert ran(tmp_path, dataclasses.replace(OPTIONS, seed=2)) == ["first"]


def test_other_data_repeat_every_stage(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    assert ran(tmp_path, OPTIONS, log_seed=1) == ["first", "second"]


def test_other_code_repeats_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of both stages is one, so its edit repeats both."""
    ran(tmp_path, OPTIONS)
    monkeypatch.setattr(SecondStage, "code", ("rankloom_training.calibrate",))
    assert ran(tmp_path, OPTIONS) == ["second"]
    digest = fingerprint.code_digest
    monkeypatch.setattr(
        fingerprint, "code_digest", lambda name: "edited" if "calibrate" in name else digest(name)
    )
    assert ran(tmp_path, OPTIONS) == ["second"]
    assert ran(tmp_path, OPTIONS) == []


@pytest.mark.parametrize("damage", ["truncated", "missing", "more", "unrecorded"])
def test_a_finished_stage_that_was_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    ran(tmp_path, OPTIONS)
    made = tmp_path / "first" / "part" / FILE
    match damage:
        case "truncated":
            made.write_text("par")
        case "missing":
            made.unlink()
        case "more":
            made.with_name("more").write_text("")
        case _:
            (tmp_path / "first.json").write_text("{")
    assert ran(tmp_path, OPTIONS) == ["first"]
    assert [path.name for path in made.parent.iterdir()] == [FILE]
    assert made.read_text() == "parity 0"


def test_an_interrupted_stage_is_repeated_and_the_finished_one_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ran(tmp_path, dataclasses.replace(OPTIONS, num_groups=13))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "first.json", MARK]
    assert ran(tmp_path, OPTIONS) == ["second"]
    assert [path.name for path in (tmp_path / "second").iterdir()] == [FILE]


def test_a_killed_run_leaves_its_finished_stage(tmp_path: Path) -> None:
    """The tests' folder is on the path of the process, as it is here."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "work"],
        check=False,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "work" / "second").exists()
    assert ran(tmp_path / "work", OPTIONS) == ["second"]
    assert [path.name for path in (tmp_path / "work" / "second").iterdir()] == [FILE]


def test_checkpoints_are_for_the_same_stage_of_another_run_alone(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    first, second = (fingerprint.fingerprint_of(FirstStage(seed), "data", {}) for seed in (0, 1))

    def interrupted(_: Path, unfinished: Path) -> None:
        Checkpoint(unfinished / "loop.pt").save(lambda: {"step": 3})
        raise KeyboardInterrupt

    for made_from in (first, second):
        with pytest.raises(KeyboardInterrupt), work.begun():
            work.make("first", made_from, interrupted)
    assert not work.unfinished("first", first).exists()
    found: list[object] = []
    work.make("first", second, lambda _, unfinished: found.append(
        Checkpoint(unfinished / "loop.pt").load()
    ))  # fmt: skip
    assert found == [{"step": 3}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "first.json", MARK]


def test_a_stage_cannot_read_files_that_it_does_not_need(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        StageInputs(random_log(0), tmp_path, {}, Progress(), tmp_path).of(FirstFiles)


def test_every_stage_comes_after_those_that_it_needs() -> None:
    made: set[str] = set()
    for stage in stages_of(OPTIONS):
        assert {kind.stage for kind in stage.needs} <= made
        made.add(stage.name)


def test_a_removed_workspace_is_gone(tmp_path: Path) -> None:
    ran(tmp_path / "deep" / "work", OPTIONS)
    Workspace(tmp_path / "deep" / "work").remove()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_of_other_files_is_not_touched(tmp_path: Path) -> None:
    """A user's own folder may have the workspace's name."""
    precious = tmp_path / "work" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(WorkspaceError, match="holds other files"):
        Workspace(tmp_path / "work")
    assert precious.read_text() == "years of work"


def test_two_trainings_do_not_share_a_workspace(tmp_path: Path) -> None:
    with Workspace(tmp_path / "work").begun():
        with pytest.raises(WorkspaceError, match="another process works in it"):
            ran(tmp_path / "work", OPTIONS)
        assert ran(tmp_path / "other", OPTIONS) == ["first", "second"]
    assert ran(tmp_path / "work", OPTIONS) == ["first", "second"]


def test_a_workspace_of_another_layout_is_cleared(tmp_path: Path) -> None:
    (tmp_path / MARK).write_text("{}")
    (tmp_path / "first").mkdir()
    assert ran(tmp_path, OPTIONS) == ["first", "second"]
