"""Trains a bundle on a generated log and clocks each stage.

    python -m benchmarks.stages [--rows N] [--items N] [--lm-rows N]

Wall and CPU seconds of each stage, the rows of the log that it handles per CPU-second (for the
language model's stages, which see ``--lm-rows`` rows at most: tokens, padding included), and the
peak memory of the process. Beside them the FLOPs of its matrix products and attention per
CPU-second, and their share of the roofline: plain float32 matrix products, timed before and after
the training. FLOPs are counted in torch alone, so the trees have none.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from benchmarks.common.arguments import command_line, count, run_command
from benchmarks.common.results import BenchmarkResult, RunFacts, write
from benchmarks.stages.generated import write_log
from benchmarks.stages.report import figures, summary
from rankloom_engine.threads import wait_briefly
from rankloom_training.options import TrainOptions
from rankloom_training.train import train_bundle


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
    """Trains once. Imports torch only here, where its threads' environment is set."""
    from benchmarks.stages.clock import ClockedProgress, flops_per_cpu_s

    facts, progress = RunFacts.now(), ClockedProgress()
    with tempfile.TemporaryDirectory() as folder:
        data = write_log(Path(folder) / "data", args.rows, args.items)
        roofline, started = flops_per_cpu_s(), time.monotonic()
        options = TrainOptions(lm_rows=args.lm_rows)
        train_bundle(data, Path(folder) / "bundle", options, progress)
        total_s = time.monotonic() - started
    roofline += flops_per_cpu_s()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = BenchmarkResult(
        room="stages",
        facts=facts,
        dtype="float32",
        settings={"rows": args.rows, "items": args.items, "lm_rows": args.lm_rows},
        figures=figures(args.rows, progress.costs, roofline, total_s, peak_mib),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
