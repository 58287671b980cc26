"""Checks what is asked for, then trains a bundle from an interaction log."""

from __future__ import annotations

import os
from pathlib import Path

from rankloom_training.data import load_dataset
from rankloom_training.data.report import report_lines
from rankloom_training.group_counts import check_groups
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.stages.workspace import Workspace


class OutputError(ValueError):
    """The bundle cannot be written to that path."""


def train_bundle(data: Path, out: Path, options: TrainOptions, progress: Progress) -> str:
    """Trains all stages and writes the bundle to ``out``. Returns the bundle's digest.

    Unfinished work is kept in ``<out>.work``. The next run on the same data with the same
    options resumes it. Raises DataError, BaseModelError, GroupError, WorkspaceError or
    OutputError; all are ValueErrors.
    """
    if out.exists():
        raise OutputError(f"{out} exists; remove it or choose another path")
    given = load_dataset(data, options.like_above, options.implicit)
    dataset = given.with_negatives(options.seed)
    check_groups(options.num_groups, dataset.log.num_training_users)
    work = Workspace(out.with_name(out.name + ".work"))
    work.begin()
    # The models' libraries take ten seconds to import: what is wrong with the data is said before.
    from rankloom_adapters.bundle import open_bundle
    from rankloom_engine.memory import keep_freed_memory
    from rankloom_training.stages.base import check_base
    from rankloom_training.stages.sequence import StageRunner, stages_of

    check_base(options.base)
    for label, text in report_lines(given):
        progress.tell(label, text)
    keep_freed_memory()
    made = StageRunner(dataset, work, progress).run(stages_of(options))
    digest = open_bundle(made).digest
    out.parent.mkdir(parents=True, exist_ok=True)
    os.replace(made, out)
    work.remove()
    return digest
