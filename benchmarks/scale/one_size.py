"""Trains all but the language model on one generated log, and prints what each stage cost.

A process of its own for each size, so that no size inherits another's memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from benchmarks.stages.generated import write_log
from rankloom_engine.memory import keep_freed_memory
from rankloom_training.data import load_dataset
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress, StageProgress
from rankloom_training.stages.sequence import StageRunner, stages_of
from rankloom_training.stages.workspace import Workspace
from rankloom_training.user_events import write_events

# The stages that see the whole log; the language model's see a stated number of rows.
WHOLE_LOG: Final = ("collaborative", "trees", "router")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds, the largest memory of the process meanwhile, and what the step noted last."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    note: str = ""


class CostedProgress(Progress):
    """Remembers what each step cost."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[str, StepCost] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[StageProgress]:
        """Shows a step while its body runs, and clocks it."""
        _forget_peak()
        wall, cpu = time.monotonic(), time.process_time()
        with super().stage(name) as shown:
            yield shown
        cost = time.process_time() - cpu, time.monotonic() - wall
        self.costs[name] = StepCost(*cost, _peak_mib(), shown.last_note)

    def timed(self, name: str, step: Callable[[], T]) -> T:
        """The value of a step that reports no progress."""
        with self.stage(name):
            return step()


def costs_of(folder: Path, num_rows: int, num_items: int) -> dict[str, StepCost]:
    """What each step costs. ``folder``: of the log, the stages and the events."""
    keep_freed_memory()
    progress, data = CostedProgress(), write_log(folder / "data", num_rows, num_items)
    dataset = progress.timed("data", lambda: load_dataset(data))
    work = Workspace(folder / "work")
    stages = [each for each in stages_of(TrainOptions()) if each.name in WHOLE_LOG]
    with work.begun():
        StageRunner(dataset, work, progress, {}).run(stages)
    progress.timed("events", lambda: write_events(dataset, folder / "bundle"))
    return progress.costs


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # see man proc


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        found = costs_of(Path(name), *map(int, sys.argv[1:3]))
    print(json.dumps({name: asdict(cost) for name, cost in found.items()}))
