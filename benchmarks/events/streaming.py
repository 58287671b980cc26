"""Computes the features of every user of a large store, as a stream.

    python -m benchmarks.events.streaming [--bundle FOLDER] [--users N] [--events N]

A store of events about the bundle's items is generated. A process of its own then asks for the
vectors of all its users, 256 a call, and for the columns of 20 candidates of every tenth one.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_bundle, command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("events.streaming", __doc__)
    add_bundle(parser)
    parser.add_argument("--users", type=count, default=10_000, help="default: 10,000")
    parser.add_argument("--events", type=count, default=1_000_000, help="default: 1,000,000")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if the process failed."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.children import CaseError
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.small_bundle import make_small_bundle
    from benchmarks.events.streamed import run_streaming, summary

    facts = RunFacts.now()
    with TemporaryDirectory() as folder:
        bundle = args.bundle or make_small_bundle(Path(folder))
        try:
            found = run_streaming(Path(folder), bundle, args.users, args.events)
        except CaseError as error:
            return str(error)
    result = BenchmarkResult(
        room="events-streaming",
        facts=facts,
        dtype="float32",
        settings={"users": args.users, "events": args.events},
        figures=found,
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")
    return None


if __name__ == "__main__":
    main()
