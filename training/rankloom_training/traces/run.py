"""From a log to traces: fits what influences are measured on, and asks the teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankloom_features.catalogue import Catalogue
from rankloom_training.data import Dataset
from rankloom_training.progress import Progress
from rankloom_training.reasons.fitting import fit_influences
from rankloom_training.reasons.text_check import TextCheck
from rankloom_training.reasons.trace import Trace, TraceKind
from rankloom_training.teachers.asking import Finished, ask_all
from rankloom_training.teachers.chat_rationale import ChatRationales
from rankloom_training.teachers.chat_teacher import ChatTeacher
from rankloom_training.teachers.choosing import EVIDENCE, TeacherOptions, open_chat
from rankloom_training.teachers.evidence import EvidenceTeacher
from rankloom_training.teachers.evidence_rationale import EvidenceRationales
from rankloom_training.teachers.teacher import Teacher
from rankloom_training.teachers.think_prompts import Texts
from rankloom_training.traces.cases import CaseMaker, CaseOptions
from rankloom_training.traces.trace_file import read_traces


def run_teacher(
    data: Dataset, teacher: Teacher, options: CaseOptions, concurrency: int, progress: Progress
) -> Finished[Trace]:
    """The teacher's traces of rows drawn from the log."""
    with progress.stage("influences"):
        influences = fit_influences(data, options.protocol, options.seed, progress.step)
    maker = CaseMaker(data, influences, options)
    with progress.stage("traces"):
        return ask_all(
            teacher.trace,
            maker.cases(),
            concurrency,
            lambda done: progress.step(done, len(maker.rows)),
        )


def with_earlier(made: Finished[Trace], out: Path) -> tuple[Trace, ...]:
    """What to write: a run that ended early takes nothing away from an earlier file."""
    earlier = read_traces(out) if made.stopped and out.exists() else []
    by_row = {trace.row: trace for trace in (*earlier, *made.written)}
    return tuple(by_row[row] for row in sorted(by_row))


@contextmanager
def open_teacher(
    catalogue: Catalogue, texts: Texts, kind: TraceKind, options: TeacherOptions, out: Path
) -> Iterator[Teacher]:
    """The teacher that the options name. ``out``: a model's answers are kept beside it."""
    think = kind is TraceKind.THINK
    if options.teacher == EVIDENCE:
        yield EvidenceTeacher(options.seed) if think else EvidenceRationales(options.seed)
        return
    check = TextCheck(catalogue)
    with open_chat(options, out) as chat:
        yield (ChatTeacher if think else ChatRationales)(chat, check, texts)
