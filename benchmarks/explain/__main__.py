"""Measures what explanations cost: evidence beside a ranking, grounding beside a step of words.

    python -m benchmarks.explain [--num N] [--model NAME] [--users N]

Users with a history of 20 events are ranked (20 candidates of 12 tokens) and explained in turns,
with features, router, prompts and passes, in CPU time; each has a prefix of its own, so that none
is cached for the ranking. Once with a router that chooses one expert, so that a user's variants
mostly share a mixture; once with one that fuses, so that each has its own and shares nothing; and
once more with that one where every group has the global expert, so that all mixtures are one.

Features and trees are trained on the embedded data, which takes some minutes; decoder and experts
are random. float32 everywhere.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_users, command_line, count, run_command

MODELS = ("S", "L4")


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("explain", __doc__)
    parser.add_argument("--num", type=count, default=30, help="users for each figure; default: 30")
    parser.add_argument("--model", choices=MODELS, default="S", help="default: S")
    add_users(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.bundles import train_embedded
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.workload import SHAPES
    from benchmarks.explain.report import figures, summary
    from benchmarks.explain.study import run_explain_study

    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        folder = Path(name)
        trained = train_embedded(folder, args.users)
        found = run_explain_study(trained, folder, SHAPES[args.model], args.num)
    result = BenchmarkResult(
        room="explain",
        facts=facts,
        dtype="float32",
        settings={"num": args.num, "model": args.model, "users": args.users},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
