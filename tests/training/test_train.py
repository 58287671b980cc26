"""A training plans, reuses stages of a kept folder, and can be repeated from its bundle."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from rankloom_adapters.bundle import RECIPE, open_bundle
from rankloom_features.event_store.store import EventStoreError, events_beside
from rankloom_ranker.loaded import load_bundle
from rankloom_training.option_file import read_options
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.train import TrainingJob
from small_data import small_options


def plan_of(job: TrainingJob) -> dict[str, str]:
    return dict(job.plan())


def test_a_file_that_holds_no_events_is_refused_before_the_training(
    small_data: Path, tmp_path: Path
) -> None:
    file = events_beside(tmp_path / "bundle")
    file.write_bytes(b"something else" * 1_000)
    with pytest.raises(EventStoreError, match="is not an event store"):
        TrainingJob.checked(small_data, tmp_path / "bundle", small_options())
    assert file.read_bytes() == b"something else" * 1_000


def test_another_learning_rate_of_the_groups_trains_the_groups_alone(
    small_data: Path,
    bundle_folder: Path,
    finished_stages: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    work = shutil.copytree(finished_stages, tmp_path / "stages")
    recipe = dataclasses.replace(small_options().group_recipe, learning_rate=1e-3)
    options = dataclasses.replace(small_options(), group_recipe=recipe)
    job = TrainingJob.checked(small_data, tmp_path / "other", options, work)
    plan = plan_of(job)
    assert [name for name, fate in plan.items() if fate == "reused"] == [
        "collaborative", "trees", "router", "traces", "base", "global"
    ]  # fmt: skip
    assert plan["groups"].endswith("group_recipe.learning_rate: 0.0005 → 0.001")
    capfd.readouterr()
    digest = job.run(Progress())
    shown = capfd.readouterr().err
    assert shown.count("kept from an earlier run") == 6
    assert "time           about" in shown
    labels = [line.split(maxsplit=1)[0] for line in shown.splitlines()]
    assert labels[: labels.index("collaborative")] == [
        "log", "items", "times", "likes", "split", "time"
    ]  # fmt: skip
    assert digest == open_bundle(tmp_path / "other").digest != open_bundle(bundle_folder).digest


@pytest.mark.usefixtures("bundle_folder")
def test_experts_of_groups_can_be_left_for_later(
    small_data: Path, finished_stages: Path, tmp_path: Path
) -> None:
    work, out = shutil.copytree(finished_stages, tmp_path / "stages"), tmp_path / "first"
    without = dataclasses.replace(small_options(), group_experts=False)
    TrainingJob.checked(small_data, out, without, work).run(Progress())
    loaded = load_bundle(open_bundle(out))
    assert len(loaded.expert_digests) > 2
    assert len(set(loaded.expert_digests)) == 1
    plan = plan_of(TrainingJob.checked(small_data, tmp_path / "then", small_options(), work))
    assert [name for name, fate in plan.items() if fate != "reused"] == [
        "groups", "calibrate", "time"
    ]  # fmt: skip
    assert "group_experts: False → True" in plan["groups"]


@pytest.mark.usefixtures("bundle_folder")
def test_the_same_training_again_reuses_every_stage(
    small_data: Path, finished_stages: Path, tmp_path: Path
) -> None:
    job = TrainingJob.checked(small_data, tmp_path / "again", small_options(), finished_stages)
    *stages, (_, time) = job.plan()
    assert {fate for _, fate in stages} == {"reused"}
    assert time.startswith("about 1 s")


def test_a_bundle_holds_the_options_that_repeat_it(bundle_folder: Path) -> None:
    assert read_options(bundle_folder / RECIPE, [], {}) == small_options()


def test_a_plan_reads_and_refuses_as_a_training_does(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists; remove it"):
        TrainingJob.checked(small_data, tmp_path / "out", TrainOptions())
    with pytest.raises(ValueError, match="70 groups are out of range"):
        TrainingJob.checked(small_data, tmp_path / "other", TrainOptions(num_groups=70))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
