"""Progress of long work: one bar per stage in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

LINE_EVERY_S = 30.0


class StageProgress:
    """The progress bar of one stage; without a terminal, a line every LINE_EVERY_S seconds."""

    def __init__(self, name: str, bars: Bars, task: TaskID) -> None:
        self.name, self._bars, self._task = name, bars, task
        self._started = self._shown = time.monotonic()
        self._first = (self._started, 0)  # of this part of the stage: when, and how far it got
        self._last = (0, 0)  # done and total
        self.last_note = ""

    def step(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if done < self._last[0] or total != self._last[1]:
            self._first = now, done  # another part of the stage begins
        self._last = done, total
        since, first = self._first
        if self._bars.disable and now - self._shown >= LINE_EVERY_S and done > first:
            self._shown = now
            left = (now - since) * (total - done) / (done - first)
            self._print(f"{100 * done // max(total, 1):5d} %  {_time_left(left)}")

    def note(self, text: str) -> None:
        """Shows a short text beside the bar, such as a metric."""
        self.last_note = text
        self._bars.update(self._task, note=text)

    def end(self) -> None:
        """Shows how long the stage took."""
        self._bars.update(self._task, total=1, completed=1)
        if self._bars.disable:
            self._print(f"{time.monotonic() - self._started:6.1f} s  {self.last_note}")

    def _print(self, text: str) -> None:
        self._bars.console.print(f"{self.name:<14} {text}", highlight=False, markup=False)


class Progress:
    """Shows stages one after the other on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self.current: StageProgress | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[StageProgress]:
        """Shows a stage while its body runs."""
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=self._console, disable=not self._console.is_terminal) as bars:
            self.current = StageProgress(name, bars, bars.add_task(name, total=None, note=""))
            yield self.current
            self.current.end()

    def step(self, done: int, total: int) -> None:
        if self.current is not None:
            self.current.step(done, total)

    def note(self, text: str) -> None:
        """Shows a short text beside the current stage's bar."""
        if self.current is not None:
            self.current.note(text)

    def tell(self, label: str, text: str) -> None:
        """One line beside the stages' own."""
        self._console.print(f"{label:<14} {text}", markup=False, highlight=False, soft_wrap=True)


def _time_left(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes else "less than a minute left"
