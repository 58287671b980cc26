"""Two stages that take no time: the second copies what the first wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stages.sequence import StageRunner
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.stages.workspace import Workspace
from training.logs import random_log

FILE = "made"
RUNS: list[str] = []  # names of the stages that ran


@dataclass(frozen=True, slots=True)
class FirstFiles:
    folder: Path
    stage: ClassVar[str] = "first"


@dataclass(frozen=True, slots=True)
class SecondFiles:
    folder: Path
    stage: ClassVar[str] = "second"


@dataclass(frozen=True, slots=True)
class FirstStage(Stage):
    """Writes the parity of ``seed``: two seeds may give equal files."""

    seed: int
    makes = FirstFiles

    def run(self, given: StageInputs) -> None:
        assert list(given.folder.iterdir()) == []
        RUNS.append(self.name)
        (given.folder / "part").mkdir()
        (given.folder / "part" / FILE).write_text(f"parity {self.seed % 2}")


@dataclass(frozen=True, slots=True)
class SecondStage(Stage):
    """Fails if it is told to, by a number of groups."""

    num_groups: int
    makes = SecondFiles
    needs = (FirstFiles,)

    def run(self, given: StageInputs) -> None:
        RUNS.append(self.name)
        if self.num_groups == 13:
            (given.folder / "half").write_text("half")
            raise KeyboardInterrupt
        text = (given.of(FirstFiles).folder / "part" / FILE).read_text()
        (given.folder / FILE).write_text(f"{text}, {self.num_groups} groups")


def ran(folder: Path, options: TrainOptions, *, log_seed: int = 0) -> list[str]:
    """Runs both stages with this folder of finished ones; returns the names of those that ran."""
    RUNS.clear()
    stages = [FirstStage.configured(options), SecondStage.configured(options)]
    work = Workspace(folder)
    with work.begun():
        StageRunner(random_log(log_seed), work, Progress(), {}).run(stages)
    return list(RUNS)
