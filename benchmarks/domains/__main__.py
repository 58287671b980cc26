"""Measures what experts by domain are worth, and what a domain that comes later needs.

    python -m benchmarks.domains [--users N] [--seed N] [--lm-rows N] [--work FOLDER]

Trains a bundle on synthetic films and books with an expert for each domain, then adds games as one
more expert without training anything else again (ThinkRec's incremental experiment). All test rows
are scored as served, by other mixtures and by the trees. Before games have an expert, the global
one answers: a bundle is asked about a domain on which nothing of it was trained. That words mean
other things in each domain is so by construction (``rankloom_training.synthetic_domains``): this
proves mechanics, never accuracy. It takes some minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from benchmarks.common.arguments import command_line, count, run_command

GROUP_EPOCHS = 12  # the log is a small one: after six, not every expert has left its start


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("domains", __doc__)
    parser.add_argument(
        "--users", type=count, default=200, metavar="N", help="of each domain; default: 200"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--lm-rows",
        type=count,
        default=10_000,
        metavar="N",
        help="of each training; default: 10,000",
    )
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep finished stages there for the next run"
    )
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, scores, prints and writes."""
    from tempfile import TemporaryDirectory

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.domains.report import figures, summary
    from benchmarks.domains.study import run_domains_study
    from rankloom_training.options import GROUP_RECIPE, TrainOptions
    from rankloom_training.progress import Progress

    facts = RunFacts.now()
    recipe = dataclasses.replace(GROUP_RECIPE, epochs=GROUP_EPOCHS)
    options = TrainOptions(
        group_recipe=recipe,
        lm_rows=args.lm_rows,
        trace_share=0.0,
        seed=args.seed,
    )
    with TemporaryDirectory() as name:
        found = run_domains_study(Path(name), args.work, args.users, options, Progress())
    result = BenchmarkResult(
        room="domains",
        facts=facts,
        dtype="float32",
        settings={"users": args.users, "seed": args.seed, "lm_rows": args.lm_rows},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
