"""Measures how long ratings that towers predict take over loopback, beside empty calls.

    python -m benchmarks.stored.ratings --bundle FOLDER [--turns N] [--items N]

The bundle has towers (`rankloom reccot attach`). In turns: an empty call, the features of a user of
the log, and the same with the ratings that the towers predict for some of the items. Server and
caller are one process.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import bundle_folder, command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("stored.ratings", __doc__)
    parser.add_argument("--bundle", type=bundle_folder, required=True, metavar="FOLDER")
    parser.add_argument("--turns", type=count, default=2_000, help="default: 2,000")
    parser.add_argument("--items", type=count, default=20, help="of each call; default: 20")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    import asyncio

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.stored.ratings_study import figures, run_ratings_study, summary

    facts = RunFacts.now()
    found = asyncio.run(run_ratings_study(args.bundle, args.turns, args.items))
    result = BenchmarkResult(
        room="stored-ratings",
        facts=facts,
        dtype="float32",
        settings={"turns": args.turns, "items": args.items},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
