"""Reads and writes an event store of a given size, beside bare SQLite and the disk itself.

    python -m benchmarks.events [--users N] [--events N] [--folder FOLDER]

A store is generated and taken out of the kernel's memory. A process of its own opens it and reads
histories of random users. Then events are appended, in calls of 1,000 and of one, and users are
forgotten. Every append is on the disk when it returns.

A million events take about a minute, ten million ten on a busy machine, and 45 bytes each.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import command_line, count, existing_folder, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("events", __doc__)
    parser.add_argument("--users", type=count, default=10_000, help="default: 10,000")
    parser.add_argument("--events", type=count, default=1_000_000, help="default: 1,000,000")
    parser.add_argument(
        "--folder",
        type=existing_folder,
        metavar="FOLDER",
        help="make the store below this folder, whose disk is measured; default: the system's "
        "folder for temporary files",
    )
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if a process failed."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.children import CaseError
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.events.report import figures, summary
    from benchmarks.events.study import BATCH, BATCHES, SINGLE, run_event_study

    facts = RunFacts.now()
    with TemporaryDirectory(dir=args.folder) as folder:
        try:
            found = run_event_study(Path(folder), args.users, args.events)
        except CaseError as error:
            return str(error)
    result = BenchmarkResult(
        room="events",
        facts=facts,
        dtype="float32",
        settings={"users": args.users, "events": args.events},
        figures=figures(found, BATCH * BATCHES, SINGLE),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")
    return None


if __name__ == "__main__":
    main()
