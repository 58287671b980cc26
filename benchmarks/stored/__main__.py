"""Measures how long a stored explanation takes over loopback, beside an empty call.

    python -m benchmarks.stored [--bundle FOLDER] [--turns N] [--rationales N]

A server in a process of its own has a bundle with a rationale of each event of its users, and with
many others around them. In turns: an empty call, a stored explanation of a user's event, and a call
for one that is not there.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_bundle, command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("stored", __doc__)
    add_bundle(parser)
    parser.add_argument("--turns", type=count, default=2_000, help="default: 2,000")
    parser.add_argument(
        "--rationales",
        type=count,
        default=1_000_000,
        help="of other users, around those that are asked for; default: 1,000,000",
    )
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.small_bundle import make_small_bundle
    from benchmarks.stored.report import figures, summary
    from benchmarks.stored.study import run_stored_study

    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        bundle = args.bundle or make_small_bundle(Path(name))
        found = run_stored_study(bundle, Path(name), args.rationales, args.turns)
    result = BenchmarkResult(
        room="stored",
        facts=facts,
        dtype="float32",
        settings={"turns": args.turns, "rationales": args.rationales},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
