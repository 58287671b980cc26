"""Measures what the user model is worth to the trees on a log, and what an update costs.

    python -m benchmarks.user_model --data DATA [--protocol p0|p1] [--seeds N]

Trees of the tabular features are trained with the user model's columns, without some of them and
without all, each on the same rows; no collaborative model and no language model. AUC and UAUC of
all validation and test rows are means over the seeds. Choose on validation rows alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("user_model", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DATA")
    parser.add_argument("--protocol", choices=("p0", "p1"), default="p1", help="default: p1")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="default: 3")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, scores, prints and writes."""
    from rankloom_training.data import load_dataset

    data = load_dataset(args.data)  # before libraries are imported that take seconds
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.user_model.study import study, summary, update_us
    from rankloom_training.visibility import Protocol

    facts = RunFacts.now()
    found = study(data, Protocol(args.protocol), args.seeds)
    result = BenchmarkResult(
        room="user_model",
        facts=facts,
        dtype="float64",
        settings={
            "rows": len(data.log),
            "item_columns": len(data.item_columns),
            "item_vectors": data.item_vectors is not None,
            "protocol": args.protocol,
            "seeds": args.seeds,
        },
        figures={"update_us": update_us(data), **found},
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
