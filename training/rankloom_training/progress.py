"""Progress of long work: one bar per stage in a terminal, one line per stage elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars


class Stage:
    """The progress bar of one stage."""

    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task
        self.last_note = ""

    def step(self, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Shows a short text beside the bar, such as a metric."""
        self.last_note = text
        self._bars.update(self._task, note=text)


class Progress:
    """Shows stages one after the other on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self.current: Stage | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Shows a stage while its body runs."""
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        started = time.monotonic()
        hidden = not self._console.is_terminal
        with Bars(*columns, console=self._console, disable=hidden) as bars:
            self.current = Stage(bars, bars.add_task(name, total=None, note=""))
            yield self.current
            bars.update(TaskID(0), total=1, completed=1)
        if hidden:
            seconds = time.monotonic() - started
            self._console.print(f"{name:<14} {seconds:6.1f} s  {self.current.last_note}")

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
