"""How well what is retrieved and recommended fits what users like later, on any log.

    python -m benchmarks.retrieve.quality --bundle BUNDLE --data DATA [--users N] [--fit MODEL ...]

For each user who likes items in the test rows that they did not know before: all items that the
user has not seen before the test rows are candidates, and the history is all rows before them
(protocol P1). Recall@100 of retrieval by popularity, by the bundle's collaborative model, and by
models that are fitted here to the training rows, on ratings or on likes with 4 sampled negatives.
NDCG@10 of the first ten: of these orders, of the bundle's trees over the 100 most popular items
(LightGBM over popular items), and of what the bundle recommends: its language model and trees over
its own 100 retrieved items. Intervals are of a bootstrap over users, differences are paired.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import (
    bundle_folder,
    command_line,
    count,
    existing_folder,
    run_command,
)

MODELS = ("mf-ratings", "mf-likes", "sasrec-ratings", "sasrec-likes")


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("retrieve.quality", __doc__)
    parser.add_argument("--bundle", type=bundle_folder, metavar="FOLDER", required=True)
    parser.add_argument("--data", type=existing_folder, metavar="FOLDER", required=True)
    parser.add_argument("--users", type=count, metavar="N", help="the first users alone")
    parser.add_argument(
        "--fit",
        nargs="*",
        metavar="MODEL",
        choices=MODELS,
        default=MODELS,
        help=f"models that are fitted here, of {', '.join(MODELS)}; default: all",
    )
    parser.add_argument("--name", default="a log", help="what the table calls the data")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.retrieve.quality_report import summary
    from benchmarks.retrieve.quality_study import run_quality_study

    facts = RunFacts.now()
    result = BenchmarkResult(
        room="retrieve-quality",
        facts=facts,
        dtype="float32",
        settings={"data": args.name},
        figures=run_quality_study(args.bundle, args.data, args.users, args.fit),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
