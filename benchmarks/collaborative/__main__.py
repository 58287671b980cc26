"""Measures the collaborative models alone on a log.

    python -m benchmarks.collaborative --data DATA [--protocol p0|p1] [--seeds N] [MODEL ...]

Each model is fitted to all training rows, with its defaults, stopped early on validation rows, and
scores all validation and test rows. Figures are means over the seeds; an interval is from a
bootstrap over users, of the mean score. Choose on validation rows alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import command_line, count, run_command
from rankloom_features.models import MODEL_NAMES


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("collaborative", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: mf lightgcn sasrec")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA")
    parser.add_argument("--protocol", choices=("p0", "p1"), default="p0", help="default: p0")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="default: 3")
    args = parser.parse_args()
    unknown = set(args.models) - set(MODEL_NAMES)
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; choose from {', '.join(MODEL_NAMES)}")
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Fits, scores, prints and writes."""
    from rankloom_training.data import load_dataset

    data = load_dataset(args.data)  # before torch is imported, which takes seconds
    from benchmarks.collaborative.study import study, summary
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from rankloom_training.visibility import Protocol

    facts = RunFacts.now()
    models = args.models or ["mf", "lightgcn", "sasrec"]
    result = BenchmarkResult(
        room="collaborative",
        facts=facts,
        dtype="float32",
        settings={"rows": len(data.log), "protocol": args.protocol, "seeds": args.seeds},
        figures=study(data, Protocol(args.protocol), models, args.seeds),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
