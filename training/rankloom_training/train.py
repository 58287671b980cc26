"""Checks what is asked for, then plans or runs a training from an interaction log to a bundle."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_features.event_store.store import events_beside
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.data.negatives import WEIGHTS, NegativeSampling
from rankloom_training.data.report import Line, report_lines
from rankloom_training.estimate import duration, estimate, workloads
from rankloom_training.group_counts import check_groups
from rankloom_training.grouped_items import names_of_groups
from rankloom_training.item_texts.in_prompts import with_item_texts
from rankloom_training.machine import CPU, Machine
from rankloom_training.option_file import OptionError
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stages.workspace import Workspace
from rankloom_training.traces.trace_file import traces_of

if TYPE_CHECKING:
    from rankloom_training.stages.plan import PlannedStage


class OutputError(ValueError):
    """The bundle cannot be written to that path."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training whose data and options were checked.

    ``report``: of the data as they were read. ``keeps_work``: also after the end.
    """

    dataset: Dataset
    report: tuple[Line, ...]
    options: TrainOptions
    out: Path
    work: Workspace
    keeps_work: bool
    machine: Machine

    @classmethod
    def checked(
        cls,
        data: Path,
        out: Path,
        options: TrainOptions,
        work: Path | None = None,
        machine: Machine = CPU,
    ) -> TrainingJob:
        """``work``: a folder of finished stages, kept for other trainings; None: ``<out>.work``.

        Makes nothing on disk. Raises DataError, BaseModelError, GroupError, OptionError,
        WorkspaceError or OutputError, all ValueErrors, and EventStoreError.
        """
        if out.exists():
            raise OutputError(f"{out} exists; remove it or choose another path")
        _check_events(events_beside(out))
        if options.learns_texts_alone and not options.has_texts:
            raise OptionError(
                f"trace_share: is 0, but {options.recipe} learns from texts alone; set it above 0, "
                f"or give a file of traces"
            )
        given = load_dataset(data, options.like_above, options.implicit)
        described = with_item_texts(given, data, options.item_texts)
        _check_model(options.collaborative, described.sampling)
        dataset = _with_reviews(described, data, options).with_negatives(options.seed)
        if options.group_by is None:
            check_groups(options.num_groups, dataset.log.num_training_users)
        else:
            names_of_groups(dataset.item_columns, options.group_by)
        if options.traces is not None:
            traces_of(Path(options.traces), dataset)
        workspace = Workspace(work or out.with_name(out.name + ".work"))
        report = tuple(report_lines(dataclasses.replace(given, reviews=dataset.reviews)))
        return cls(dataset, report, options, out, workspace, work is not None, machine)

    def plan(self) -> list[Line]:
        """Name, fate and time of each stage, and the time of all.

        Raises BaseModelError and MachineError.
        """
        stages, expected = self._planned(), estimate(self.dataset, self.options)
        made = [stage.name for stage in stages if not stage.is_reused]
        lines = []
        for stage in stages:
            seconds = expected.seconds.get(stage.name)
            time = "time unknown" if seconds is None else duration(seconds)
            fate = f"made, {time}: {stage.why}" if stage.name in made else "reused"
            lines.append((stage.name, fate))
        return [*lines, ("time", expected.text(made))]

    def run(self, progress: Progress) -> str:
        """Trains, and writes the bundle to ``out``. Returns the bundle's digest.

        The next run with the same data and options goes on where this one was ended. Raises
        BaseModelError, MachineError, GroupError and others; all are ValueErrors.
        """
        from rankloom_adapters.bundle import open_bundle
        from rankloom_engine.memory import keep_freed_memory
        from rankloom_training.stages.rows import limits_of
        from rankloom_training.stages.sequence import StageRunner, stages_of

        made = [stage.name for stage in self._planned() if not stage.is_reused]
        took = estimate(self.dataset, self.options).text(made)
        with self.work.begun():
            for label, text in (*self.report, *limits_of(self.dataset.log), ("time", took)):
                progress.tell(label, text)
            keep_freed_memory()
            amounts = workloads(self.dataset, self.options)
            runner = StageRunner(self.dataset, self.work, progress, amounts, self.machine)
            bundle = runner.run(stages_of(self.options))
            digest = open_bundle(bundle).digest
            self._deliver(bundle)
            return digest

    def _planned(self) -> list[PlannedStage]:
        # The models' libraries take ten seconds to import: what is wrong with the data is said
        # before.
        from rankloom_training.stages.base import check_base
        from rankloom_training.stages.fingerprint import data_digest
        from rankloom_training.stages.plan import planned
        from rankloom_training.stages.reviews import check_encoder
        from rankloom_training.stages.sequence import stages_of

        self.machine.check()
        check_base(self.options)
        check_encoder(self.options, self.dataset.reviews)
        return planned(stages_of(self.options), data_digest(self.dataset), self.work)

    def _deliver(self, bundle: Path) -> None:
        from rankloom_training.user_events import write_events

        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_events(self.dataset, self.out)
        if not self.keeps_work:
            os.replace(bundle, self.out)
            self.work.remove()
            return
        begun = self.out.with_name(f"{self.out.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        shutil.copytree(bundle, begun)
        begun.rename(self.out)


def _with_reviews(dataset: Dataset, folder: Path, options: TrainOptions) -> Dataset:
    """With the log's reviews, if they are asked for. Raises OptionError or DataError."""
    if options.review_encoder is None:
        return dataset
    if dataset.sampling is not None:
        raise OptionError(
            "review_encoder: the log has likes alone, and towers learn from ratings; leave it out"
        )
    from rankloom_training.data.reviews import load_reviews

    return dataclasses.replace(dataset, reviews=load_reviews(folder))


def _check_model(name: str, sampling: NegativeSampling | None) -> None:
    """Raises OptionError for a model that the log cannot train."""
    if name == "gsasrec" and (sampling is None or sampling.by != WEIGHTS[0]):
        raise OptionError(
            "collaborative: gsasrec needs a log of likes alone with negatives drawn uniformly; add "
            "--implicit N, or take sasrec"
        )


def _check_events(path: Path) -> None:
    """Opens the store that the events will join, if there is one. Raises EventStoreError."""
    if path.exists():
        SqliteEventStore(path).close()


def train_bundle(data: Path, out: Path, options: TrainOptions, progress: Progress) -> str:
    """Trains all stages and writes the bundle to ``out``. Returns the bundle's digest.

    Raises what ``TrainingJob`` does.
    """
    return TrainingJob.checked(data, out, options).run(progress)
