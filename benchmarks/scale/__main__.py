"""Trains on generated logs of several sizes, all but the language model, each in a process.

    python -m benchmarks.scale [--rows N ...]

CPU-seconds and peak memory of each step, and how they grow: the exponent b of seconds = a · rows^b
from the last size but one to the last. A user has 50 rows and an item 200. The language model's
stages are left out, since they see a stated number of rows (``--lm-rows``) of any log. The process
itself takes about half a GiB before it reads a row.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import command_line, count, run_command

SIZES = (10_000, 100_000, 1_000_000)
ROWS_PER_ITEM = 200


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("scale", __doc__)
    parser.add_argument(
        "--rows", type=count, nargs="+", default=SIZES, metavar="N",
        help="sizes, at least two, ascending; default: 10000 100000 1000000",
    )  # fmt: skip
    args = parser.parse_args()
    if len(args.rows) < 2 or sorted(set(args.rows)) != list(args.rows):
        parser.error("--rows: give two sizes or more, ascending")
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains on each size, prints and writes."""
    from benchmarks.common.children import run_case
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.scale.report import figures, summary

    facts, costs = RunFacts.now(), []
    for rows in args.rows:
        items = max(rows // ROWS_PER_ITEM, 50)
        costs.append(run_case("benchmarks.scale.one_size", [str(rows), str(items)]))
    result = BenchmarkResult(
        room="scale",
        facts=facts,
        dtype="float32",
        settings={"rows": list(args.rows), "rows_per_item": ROWS_PER_ITEM},
        figures=figures(args.rows, costs),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
