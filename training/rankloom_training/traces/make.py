"""Has a teacher write traces, several at a time; what is finished is never lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from rankloom_training.reasons.case import TraceCase
from rankloom_training.reasons.trace import Trace
from rankloom_training.teachers.teacher import Teacher, TeacherError

OnStep = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class MadeTraces:
    """``traces``: those that are finished, by row. ``stopped``: why it ended early, or empty."""

    traces: tuple[Trace, ...]
    stopped: str = ""


def make_traces(
    teacher: Teacher, cases: Iterator[TraceCase], concurrency: int, on_step: OnStep
) -> MadeTraces:
    """Asks the teacher about each case, ``concurrency`` at a time.

    Ends early when the teacher cannot go on. ``on_step``: called with the traces finished.
    """
    traces: list[Trace] = []
    with ThreadPoolExecutor(concurrency) as pool:
        running = [pool.submit(teacher.trace, case) for case in islice(cases, concurrency)]
        stopped = ""
        while running:
            stopped = _take(running.pop(0), traces) or stopped
            on_step(len(traces))
            if not stopped:
                running += [pool.submit(teacher.trace, case) for case in islice(cases, 1)]
    return MadeTraces(tuple(traces), stopped)


def _take(answer: Future[Trace], traces: list[Trace]) -> str:
    """Keeps a finished trace, or says why there is none."""
    try:
        traces.append(answer.result())
    except TeacherError as error:
        return str(error)
    return ""
