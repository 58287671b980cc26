"""Trains a bundle on a generated log and clocks each stage.

    python -m benchmarks.stages [--rows N] [--items N] [--lm-rows N]

Wall and CPU seconds of each stage, the rows of the log that it handles per CPU-second, and the
peak memory of the process. Stages of the language model see ``--lm-rows`` rows at most.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common.arguments import command_line, count, run_command
from benchmarks.common.results import BenchmarkResult, RunFacts, write
from benchmarks.stages.generated import write_log
from benchmarks.stages.report import figures, summary
from rankloom_engine.threads import wait_briefly
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress, StageProgress
from rankloom_training.train import train_bundle


class ClockedProgress(Progress):
    """Remembers the wall and CPU seconds of each stage, and what it noted last."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, tuple[float, float]] = {}
        self.notes: dict[str, str] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[StageProgress]:
        """Shows a stage while its body runs, and clocks it."""
        wall, cpu = time.monotonic(), time.process_time()
        with super().stage(name) as shown:
            yield shown
        self.seconds[name] = time.monotonic() - wall, time.process_time() - cpu
        self.notes[name] = shown.last_note


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("stages", __doc__)
    parser.add_argument("--rows", type=count, default=1_000_000, help="default: 1000000")
    parser.add_argument("--items", type=count, default=4000, help="default: 4000")
    parser.add_argument("--lm-rows", type=count, default=TrainOptions().lm_rows, metavar="N")
    args = parser.parse_args()
    wait_briefly()
    run_command(lambda: run(args), set_environment=False)


def run(args: argparse.Namespace) -> None:
    """Trains once."""
    facts, progress = RunFacts.now(), ClockedProgress()
    with tempfile.TemporaryDirectory() as folder:
        data = write_log(Path(folder) / "data", args.rows, args.items)
        started = time.monotonic()
        options = TrainOptions(lm_rows=args.lm_rows)
        train_bundle(data, Path(folder) / "bundle", options, progress)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = BenchmarkResult(
        room="stages",
        facts=facts,
        dtype="float32",
        settings={"rows": args.rows, "items": args.items, "lm_rows": args.lm_rows},
        figures=figures(
            args.rows, progress.seconds, progress.notes, time.monotonic() - started, peak_mib
        ),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
