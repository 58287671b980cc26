"""A plan says which stages are reused, and of the others why not, without changing anything."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from rankloom_training.options import TrainOptions
from rankloom_training.stages import fingerprint
from rankloom_training.stages.fingerprint import data_digest
from rankloom_training.stages.plan import planned
from rankloom_training.stages.workspace import Workspace
from training.logs import random_log
from training.stages.toy_stages import FILE, FirstStage, SecondStage, ran

OPTIONS = TrainOptions()


def plan_of(folder: Path, options: TrainOptions, *, log_seed: int = 0) -> dict[str, str]:
    """Stage → why it would be made; empty if it would be reused."""
    stages = [FirstStage.configured(options), SecondStage.configured(options)]
    plan = planned(stages, data_digest(random_log(log_seed)), Workspace(folder))
    return {stage.name: stage.why for stage in plan}


def test_nothing_was_made_yet_and_nothing_is_written(tmp_path: Path) -> None:
    assert plan_of(tmp_path / "work", OPTIONS) == {
        "first": "not made yet",
        "second": "not made yet",
    }
    assert not (tmp_path / "work").exists()


def test_all_is_reused(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    assert plan_of(tmp_path, OPTIONS) == {"first": "", "second": ""}


def test_another_option_is_named_with_both_values(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    other = dataclasses.replace(OPTIONS, num_groups=4)
    assert plan_of(tmp_path, other) == {"first": "", "second": "num_groups: 3 → 4"}
    assert ran(tmp_path, other) == ["second"]


def test_a_stage_follows_one_that_is_made_again(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    other = dataclasses.replace(OPTIONS, seed=1)
    assert plan_of(tmp_path, other) == {"first": "seed: 0 → 1", "second": "follows first"}


def test_other_data_and_damage_are_named(tmp_path: Path) -> None:
    ran(tmp_path, OPTIONS)
    assert plan_of(tmp_path, OPTIONS, log_seed=1) == {"first": "other data", "second": "other data"}
    (tmp_path / "second" / FILE).write_text("")
    assert plan_of(tmp_path, OPTIONS) == {"first": "", "second": "its files were changed"}


def test_edited_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecondStage, "code", ("rankloom_training.calibrate",))
    ran(tmp_path, OPTIONS)
    digest = fingerprint.code_digest
    monkeypatch.setattr(
        fingerprint, "code_digest", lambda name: "edited" if "calibrate" in name else digest(name)
    )
    assert plan_of(tmp_path, OPTIONS) == {
        "first": "",
        "second": "code changed: rankloom_training.calibrate",
    }


def test_other_files_of_a_needed_stage_are_named(tmp_path: Path) -> None:
    """As when a run ended between the two stages."""
    ran(tmp_path / "work", OPTIONS)
    ran(tmp_path / "other", dataclasses.replace(OPTIONS, seed=1))
    for name in ("first", "first.json"):
        moved = tmp_path / "work" / name
        shutil.rmtree(moved) if moved.is_dir() else moved.unlink()
        (tmp_path / "other" / name).rename(moved)
    plan = plan_of(tmp_path / "work", dataclasses.replace(OPTIONS, seed=1))
    assert plan == {"first": "", "second": "other files of first"}
