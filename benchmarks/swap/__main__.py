"""Replaces, promotes and rolls back experts again and again under a saturating load.

    python -m benchmarks.swap [--swaps N] [--bundle FOLDER]

A real `rankloom serve` with a state folder, 16 callers in their own process that never pause, and
an operator. One swap: stage an expert with other weights, promote it without gates, let it
answer, roll back, retire. Before a revision is promoted, its scores for 8 fixed calls are taken
while it is a shadow.
All answers of the load are for these calls, so the scores of each show which revision computed
them: it must be the one that the answer names, for every item, and it must have been active
between call and answer.

Rounds of swaps take turns with rounds of the same length without swaps. The bundle is small:
features and trees trained on a part of the embedded data, which takes a minute, and a random
decoder of 2 layers in float32, so that 1,000 swaps take about half an hour on two cores. The
server's caches are so small that they are full before memory is measured.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_bundle, command_line, count, run_command


def main() -> None:
    """Prints the tables and writes the result."""
    parser = command_line("swap", __doc__)
    parser.add_argument("--swaps", type=count, default=1000, help="default: 1000")
    add_bundle(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if an answer was wrong or a command failed."""
    from dataclasses import asdict
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.rollout_operator import OperatorError
    from benchmarks.common.server_process import ServerProcessError
    from benchmarks.common.small_bundle import make_small_bundle
    from benchmarks.swap.callers import CallersEndedError
    from benchmarks.swap.report import figures, tables
    from benchmarks.swap.study import SwapPlan, run_swap_study

    facts, plan = RunFacts.now(), SwapPlan(args.swaps)
    with TemporaryDirectory() as folder:
        try:
            bundle = args.bundle or make_small_bundle(Path(folder))
            found = run_swap_study(bundle, Path(folder), plan)
        except (ServerProcessError, OperatorError, CallersEndedError) as error:
            return str(error)
    result = BenchmarkResult(
        room="swap",
        facts=facts,
        dtype="float32",
        settings={**asdict(plan), "warm_up": plan.warm_up},
        figures=figures(found),
    )
    print(result.headline(), tables(result), f"written: {write(result, args.results)}", sep="\n\n")
    return "\n".join(found.checker.examples) or None


if __name__ == "__main__":
    main()
