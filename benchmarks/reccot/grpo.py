"""Measures whether GRPO raises the rewards of a small decoder's answers.

    python -m benchmarks.reccot.grpo --data DATA [--steps N] [--seeds N]

For each seed, a small decoder is taught the form of answers and then trained by GRPO, both on
training reviews. Shown are the rewards of its first and last steps, and of its answers about test
reviews before and after, drawn and likeliest, paired, with a bootstrap over users.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("reccot.grpo", __doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DATA")
    parser.add_argument("--steps", type=count, default=60, metavar="N", help="default: 60")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="default: 3")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, answers, prints and writes."""
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.reccot.reward_study import RewardStudy, figures_of, summary
    from rankloom_training.data.reviews import load_reviews

    facts, study = RunFacts.now(), RewardStudy(load_reviews(args.data), args.steps)
    found = [study.of_seed(seed) for seed in range(args.seeds)]
    result = BenchmarkResult(
        room="reccot-grpo",
        facts=facts,
        dtype="float32",
        settings={"reviews": len(study.reviews), "steps": args.steps, "seeds": args.seeds},
        figures=figures_of(study, found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
