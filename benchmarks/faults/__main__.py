"""Measures rankings while the feature service is at fault, and what each fallback level is worth.

    python -m benchmarks.faults [--num N] [--deadline S] [--users N] [--work FOLDER]

Trains a bundle on the embedded data, which takes some minutes. A ranking server, a feature service
that can be made ill, a network between them that can fail, and the caller are one process. Under
each fault, rankings are asked one after the other; then the fault ends. NDCG@10 is that of each
user's test rows, by each fallback level.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import (
    add_stages,
    add_users,
    command_line,
    count,
    duration,
    run_command,
)


def main() -> None:
    """Prints the tables and writes the result."""
    parser = command_line("faults", __doc__)
    parser.add_argument(
        "--num", type=count, default=50, metavar="N", help="rankings under a fault; default: 50"
    )
    parser.add_argument(
        "--deadline", type=duration, default=1.0, metavar="S", help="of each ranking; default: 1"
    )
    add_stages(parser)
    add_users(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, measures, prints and writes."""
    import asyncio
    from tempfile import TemporaryDirectory

    from benchmarks.common.bundles import train_short
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.faults.levels import study_levels
    from benchmarks.faults.report import figures, summary
    from benchmarks.faults.study import run_faults_study
    from rankloom_adapters.bundle import open_bundle
    from rankloom_server import logs
    from rankloom_training.data import load_dataset

    logs.configure("error")
    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        log = train_short(Path(name), args.users, args.work)
        faults = asyncio.run(run_faults_study(log.bundle, args.num, args.deadline))
        levels = study_levels(open_bundle(log.bundle), load_dataset(log.data))
    result = BenchmarkResult(
        room="faults",
        facts=facts,
        dtype="float32",
        settings={"num": args.num, "deadline_s": args.deadline, "users": args.users},
        figures=figures(faults, levels),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
