"""From a log to traces: fits what influences are measured on, and asks the teacher."""

from __future__ import annotations

from rankloom_training.data import Dataset
from rankloom_training.progress import Progress
from rankloom_training.reasons.fitting import fit_influences
from rankloom_training.teachers.teacher import Teacher
from rankloom_training.traces.cases import CaseMaker, CaseOptions
from rankloom_training.traces.make import MadeTraces, make_traces


def run_teacher(
    data: Dataset, teacher: Teacher, options: CaseOptions, concurrency: int, progress: Progress
) -> MadeTraces:
    """The teacher's traces of rows drawn from the log."""
    with progress.stage("influences"):
        influences = fit_influences(data, options.protocol, options.seed, progress.step)
    maker = CaseMaker(data, influences, options)
    with progress.stage(teacher.name):
        return make_traces(
            teacher,
            maker.cases(),
            concurrency,
            lambda done: progress.step(done, len(maker.rows)),
        )
