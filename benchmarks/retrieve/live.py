"""Measures how soon retrievals reflect events, and whether swaps mix revisions.

    python -m benchmarks.retrieve.live [--bundle FOLDER] [--events N] [--swaps N]

First, users like the item that is nearest to them: the time from sending the event to the first
Retrieve that leaves the item out and is by another vector. Then a server in a process of its own
swaps two bundles, of other items, indexes and experts, under callers that retrieve and recommend
without a pause: stage, promote, let it answer, roll back, let it answer, retire. What either bundle
answers is known beforehand, so that each answer must be that of the revision that it names, item by
item and score by score.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_bundle, command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("retrieve.live", __doc__)
    add_bundle(parser)
    parser.add_argument("--events", type=count, default=200, help="default: 200")
    parser.add_argument("--swaps", type=count, default=300, help="default: 300")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Measures, prints and writes; returns examples of wrong answers."""
    import asyncio
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.small_bundle import make_small_bundle
    from benchmarks.retrieve.freshness import run_freshness_study
    from benchmarks.retrieve.live_report import figures, summary
    from benchmarks.retrieve.swaps import AlikeBundlesError, swap_study
    from rankloom_server import logs

    logs.configure("error")
    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        bundle = args.bundle or make_small_bundle(Path(name))
        fresh = asyncio.run(run_freshness_study(bundle, Path(name), args.events))
        try:
            swaps = swap_study(bundle, Path(name), args.swaps)
        except AlikeBundlesError as error:
            return str(error)
    result = BenchmarkResult(
        room="retrieve-live",
        facts=facts,
        dtype="float32",
        settings={"events": args.events, "swaps": args.swaps},
        figures=figures(fresh, swaps),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")
    return "\n".join(swaps.examples) or None


if __name__ == "__main__":
    main()
