"""From reviews to a file of rationales, each by a generator that has not seen its row."""

from __future__ import annotations

import glob
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.answer import AnswerProblem, ReadAnswer, read_answer
from rankloom_training.reccot.folds import CrossFit
from rankloom_training.reccot.generators import REPORTS, Generator, Rows
from rankloom_training.reccot.prompts import messages_of
from rankloom_training.reccot.rationale_file import (
    ReviewRationale,
    check_rationale_file,
    key_of,
    read_rationales,
    write_rationales,
)
from rankloom_training.reccot.steps import Steps
from rankloom_training.stages.workspace import Workspace
from rankloom_training.teachers.chat import digest_of_prompt

PART_ROWS = 512  # written at a time: what a killed run loses at most
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """``folds``: generators, each of which writes about what it has not seen."""

    folds: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """How many rationales there are, and how many answers were repaired or cannot be used."""

    total: int
    repaired: int
    problems: dict[str, int]

    @classmethod
    def of(cls, rationales: Sequence[ReviewRationale]) -> Written:
        problems = Counter(str(one.problem) for one in rationales if one.problem)
        return cls(len(rationales), sum(one.repaired for one in rationales), dict(problems))

    @property
    def sound(self) -> int:
        return self.total - sum(self.problems.values())


def generate(
    reviews: Reviews,
    generator: Generator,
    options: GenerateOptions,
    out: Path,
    on_step: OnStep,
) -> Written:
    """Writes ``out``; finished parts are kept in ``OUT.work``, from which a killed run goes on.

    Raises DataError, TeacherError or WorkspaceError.
    """
    check_rationale_file(out, may_be_missing=True)
    cross_fit = CrossFit.of(reviews, options.folds, options.seed)
    steps = Steps(Workspace(out.with_name(f"{out.name}.work")), reviews.digest())
    writer = _CrossFitWriter(reviews, generator, cross_fit, steps, asdict(options), on_step)
    by_row: dict[int, ReviewRationale] = {}
    with steps.workspace.begun():
        _remove_reports(out)
        for fold in range(options.folds):
            rows = cross_fit.written_by(fold).tolist()
            by_row |= zip(rows, writer.rationales(fold), strict=True)
            _keep_reports(steps.workspace.folder_of(f"generator-{fold}"), out, fold)
        written = [by_row[row] for row in range(len(reviews))]
        write_rationales(out, written)
        steps.workspace.remove()
    return Written.of(written)


def _remove_reports(out: Path) -> None:
    """Those of former rationales."""
    for name in REPORTS:
        for report in out.parent.glob(f"{glob.escape(out.name)}.*.{name}"):
            report.unlink()


def _keep_reports(trained: Path, out: Path, fold: int) -> None:
    """What a generator's training reports stays beside the rationales, as OUT.FOLD.NAME."""
    for name in REPORTS:
        if (trained / name).exists():
            shutil.copy(trained / name, out.with_name(f"{out.name}.{fold}.{name}"))


@dataclass(slots=True)
class _CrossFitWriter:
    reviews: Reviews
    generator: Generator
    cross_fit: CrossFit
    steps: Steps
    options: dict[str, object]
    on_step: OnStep
    done: int = 0

    def rationales(self, fold: int) -> list[ReviewRationale]:
        """Those of one fold's rows."""
        options = {**self.options, **self.generator.options, "fold": fold}
        learnt = self.cross_fit.learnt_by(fold)
        learnt = learnt[self.reviews.has_text[learnt]]

        def train(folder: Path, unfinished: Path) -> None:
            self.generator.train(self.reviews, learnt, folder, unfinished)

        def write(folder: Path, unfinished: Path) -> None:
            write_rationales(folder / "all.parquet", list(self._parts(fold, unfinished)))

        trained = f"generator-{fold}"
        self.steps.folder(trained, options, train)
        return read_rationales(
            self.steps.folder(f"written-{fold}", options, write, (trained,)) / "all.parquet"
        )

    def _parts(self, fold: int, unfinished: Path) -> Iterator[ReviewRationale]:
        """In parts of PART_ROWS, each of which is on disk before the next begins."""
        rows = self.cross_fit.written_by(fold)
        for start in range(0, len(rows), PART_ROWS):
            part = unfinished / f"{start}.parquet"
            if not part.exists():
                write_rationales(part, list(self._write(rows[start : start + PART_ROWS], fold)))
            yield from read_rationales(part)
            self.done += len(rows[start : start + PART_ROWS])
            self.on_step(self.done, len(self.reviews))

    def _write(self, rows: Rows, fold: int) -> Iterator[ReviewRationale]:
        spoken = rows[self.reviews.has_text[rows]]
        folder = self.steps.workspace.folder_of(f"generator-{fold}")
        raw = self.generator.write(self.reviews, spoken, folder)
        answers = dict(zip(spoken.tolist(), map(_read, raw), strict=True))
        silent = ReadAnswer(None, problem=AnswerProblem.NO_TEXT)
        for row in rows.tolist():
            yield self._rationale(row, answers.get(row, silent), fold)

    def _rationale(self, row: int, read: ReadAnswer, fold: int) -> ReviewRationale:
        user_id, item_id, time, digest = key_of(self.reviews, row)
        name = self.generator.name
        return ReviewRationale(
            user_id=user_id,
            item_id=item_id,
            time=time,
            text_digest=digest,
            think=read.answer.think if read.answer else "",
            answer=read.answer.answer if read.answer else None,
            problem=read.problem,
            repaired=read.repaired,
            fold=fold,
            generator=name,
            prompt_digest=digest_of_prompt(name, messages_of(self.reviews, row), 0),
            written=datetime.now(UTC),
        )


def _read(raw: str | None) -> ReadAnswer:
    return ReadAnswer(None, problem=AnswerProblem.REFUSED) if raw is None else read_answer(raw)
