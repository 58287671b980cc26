"""Measures whether a server computes at a moment of the log what training computed for it.

    python -m benchmarks.replay [--rows N] [--events N] [--users N] [--work FOLDER]

Trains a bundle on the embedded data, which takes some minutes. Then a server that knows no event
gets the log by RecordEvents, in the order of time, and before each of the drawn rows it is asked
for the row's features and score. Training's side is computed from arrays of the log and by the
windows that experts are trained on; of validation rows it is what the stages left on disk. A second
server gets events in any order, late and twice, and is compared with histories computed in one go.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import (
    add_stages,
    add_users,
    command_line,
    count,
    run_command,
)


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("replay", __doc__)
    parser.add_argument(
        "--rows", type=count, default=1000, metavar="N", help="of train and of valid; default: 1000"
    )
    parser.add_argument("--events", type=count, default=10_000, metavar="N", help="default: 10000")
    add_stages(parser)
    add_users(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, replays, prints and writes."""
    import asyncio
    from tempfile import TemporaryDirectory

    from benchmarks.common.bundles import train_short
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.replay.report import figures, summary
    from benchmarks.replay.study import run_replay_study
    from rankloom_server import logs
    from rankloom_training.data import load_dataset

    logs.configure("error")
    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        log = train_short(Path(name), args.users, args.work)
        dataset = load_dataset(log.data)
        study = run_replay_study(log.bundle, log.stages, dataset, args.rows, args.events)
        found = asyncio.run(study)
    result = BenchmarkResult(
        room="replay",
        facts=facts,
        dtype="float32",
        settings={"rows": args.rows, "events": args.events, "users": args.users},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
