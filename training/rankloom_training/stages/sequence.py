"""All stages from log to bundle, in their order, run or reused."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rankloom_training.data import Dataset
from rankloom_training.estimate import Workload
from rankloom_training.machine import CPU, Machine
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.rates import remember
from rankloom_training.stages.base import BaseStage
from rankloom_training.stages.calibrate import CalibrateStage
from rankloom_training.stages.collaborative import CollaborativeStage
from rankloom_training.stages.fingerprint import data_digest, fingerprint_of
from rankloom_training.stages.global_expert import GlobalStage
from rankloom_training.stages.group_experts import GroupsStage
from rankloom_training.stages.reviews import ReviewsStage
from rankloom_training.stages.router import RouterStage
from rankloom_training.stages.stage import Stage, StageInputs
from rankloom_training.stages.traces import TracesStage
from rankloom_training.stages.trees import TreesStage
from rankloom_training.stages.workspace import Workspace

STAGES: tuple[type[Stage], ...] = (
    CollaborativeStage,
    ReviewsStage,
    TreesStage,
    RouterStage,
    TracesStage,
    BaseStage,
    GlobalStage,
    GroupsStage,
    CalibrateStage,
)


def stages_of(options: TrainOptions) -> list[Stage]:
    """The stages with their options, each after those that it needs."""
    return [kind.configured(options) for kind in STAGES if kind.is_asked(options)]


@dataclass(frozen=True, slots=True)
class StageRunner:
    """Runs stages on one log, or reuses what an earlier run made from the same.

    ``workloads``: of the stages whose speed is kept for later estimates.
    """

    dataset: Dataset
    work: Workspace
    progress: Progress
    workloads: Mapping[str, Workload]
    machine: Machine = CPU

    def run(self, stages: list[Stage]) -> Path:
        """Returns the folder of the last stage, the sealed bundle."""
        data, digests = data_digest(self.dataset), dict[str, str]()
        for stage in stages:
            with self.progress.stage(stage.name):
                digests[stage.name] = self._run(stage, data, digests)
        return self.work.folder_of(stages[-1].name)

    def _run(self, stage: Stage, data: str, digests: Mapping[str, str]) -> str:
        """Returns the digest of the stage's files."""
        name, fingerprint = stage.name, fingerprint_of(stage, data, digests)
        if self.work.made_from(name) == fingerprint.to_json() and (kept := self.work.digest(name)):
            self.progress.note("kept from an earlier run")
            return kept
        resumes, started = self.work.unfinished(name, fingerprint).exists(), time.monotonic()
        digest = self.work.make(name, fingerprint, partial(self._fill, stage, [*fingerprint.needs]))
        if (amount := self.workloads.get(name)) and not resumes:
            remember(amount.kind, amount.rows, time.monotonic() - started)
        return digest

    def _fill(self, stage: Stage, needs: Sequence[str], folder: Path, unfinished: Path) -> None:
        made = {name: self.work.folder_of(name) for name in needs}
        stage.run(StageInputs(self.dataset, folder, made, self.progress, unfinished, self.machine))
