"""Asks a teacher many questions, several at a time; what is finished is never lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from rankloom_training.teachers.teacher import TeacherError

Question = TypeVar("Question")
Written = TypeVar("Written")
OnStep = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Finished(Generic[Written]):
    """``written``: what is finished, in order. ``stopped``: why it ended early, or empty."""

    written: tuple[Written, ...]
    stopped: str = ""


def ask_all(
    ask: Callable[[Question], Written],
    questions: Iterator[Question],
    concurrency: int,
    on_step: OnStep,
) -> Finished[Written]:
    """Asks ``concurrency`` questions at a time, and ends early when the teacher cannot go on.

    ``on_step``: called with the number of answers so far.
    """
    written: list[Written] = []
    with ThreadPoolExecutor(concurrency) as pool:
        running = [pool.submit(ask, question) for question in islice(questions, concurrency)]
        stopped = ""
        while running:
            stopped = _take(running.pop(0), written) or stopped
            on_step(len(written))
            if not stopped:
                running += [pool.submit(ask, question) for question in islice(questions, 1)]
    return Finished(tuple(written), stopped)


def _take(answer: Future[Written], written: list[Written]) -> str:
    """Keeps what is finished, or says why there is nothing."""
    try:
        written.append(answer.result())
    except TeacherError as error:
        return str(error)
    return ""
