"""Measures what a prefilter saves, and what it costs.

    python -m benchmarks.prefilter [--rank-users N] [--users N] [--work FOLDER]

Trains a bundle on the embedded data, which takes some minutes. For each user, a server ranks all
items that the user does not know before the test rows, with prefilters of 20, 50 and 100 and
without one, in turns. NDCG@10 counts the items that the user likes in the test rows.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_stages, add_users, command_line, count, run_command

SIZES = (20, 50, 100)


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("prefilter", __doc__)
    parser.add_argument(
        "--rank-users", type=count, default=200, metavar="N", help="rank for N; default: 200"
    )
    add_stages(parser)
    add_users(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, measures, prints and writes."""
    import asyncio
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.bundles import train_short
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.prefilter.report import figures, summary
    from benchmarks.prefilter.study import run_prefilter_study
    from rankloom_engine.memory import keep_freed_memory
    from rankloom_server import logs
    from rankloom_training.data import load_dataset

    keep_freed_memory()  # as servers do
    logs.configure("error")
    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        log = train_short(Path(name), args.users, args.work)
        study = run_prefilter_study(log.bundle, load_dataset(log.data), args.rank_users, SIZES)
        found = asyncio.run(study)
    result = BenchmarkResult(
        room="prefilter",
        facts=facts,
        dtype="float32",
        settings={"rank_users": args.rank_users, "users": args.users},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
