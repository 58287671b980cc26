"""Measures what rationales are worth to the two towers, beside means and matrix factorisation.

    python -m benchmarks.reccot --data DATA --rationales FILE [--unweighted FILE] [--seeds N]

The files are what `rankloom reccot generate` wrote, the second one with --no-frequency-weight. For
each seed, a text encoder is trained on reviews with rationales, on reviews alone, and on reviews
with the items' labels in place of rationales; then towers on their vectors. Squared errors of the
test rows are means over the seeds, and differences are paired, with a bootstrap over users.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("reccot", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DATA")
    parser.add_argument("--rationales", type=Path, required=True, metavar="FILE")
    parser.add_argument("--unweighted", type=Path, metavar="FILE", help="the ablation's rationales")
    parser.add_argument("--encoder", metavar="NAME", help="default: a small one is trained")
    parser.add_argument("--epochs", type=count, default=3, metavar="N", help="of it; default: 3")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="default: 3")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, predicts, prints and writes."""
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.reccot.report import figures_of, summary
    from benchmarks.reccot.study import RationaleStudy
    from rankloom_training.data.reviews import load_reviews
    from rankloom_training.reccot.rationale_file import rationales_of

    facts, reviews = RunFacts.now(), load_reviews(args.data)
    files = {"rationales": args.rationales, "unweighted": args.unweighted}
    rationales = {name: rationales_of(file, reviews) for name, file in files.items() if file}
    study = RationaleStudy(reviews, rationales, args.encoder, args.epochs)
    predicted = study.predictions(args.seeds)
    result = BenchmarkResult(
        room="reccot",
        facts=facts,
        dtype="float32",
        settings={"reviews": len(reviews), "seeds": args.seeds, "encoder": args.encoder or "small"},
        figures=figures_of(reviews, predicted),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
