"""Runs canaries of trained experts: what the gates say of one that learned shuffled labels.

    python -m benchmarks.canary [--runs N]

A bundle is trained on the embedded data. The experts of two groups are trained once more, starting
from the global one, each on its group's training rows with shuffled labels. The users of the log
then rank random items, once with the bundle and once with each bundle that has one of the new
experts. A run is a canary of half of the users, split by its own salt as a server splits them:
rankings come in a random order into a `Trial` with the default gates, which is checked when it is
due. Canaries of the bundle itself show how often the gates raise a false alarm.

Latencies are drawn alike for both arms. The data is synthetic: the result says what the gates see,
and nothing about the quality of rankings. Everything is computed in float32. 50 runs take about 25
minutes on two cores.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_users, command_line, count, run_command

GROUPS = ("group-0", "group-1")  # almost no user's mixture is mostly the global expert


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("canary", __doc__)
    parser.add_argument("--runs", type=count, default=50, help="per expert; default: 50")
    parser.add_argument("--per-user", type=count, default=8, help="rankings; default: 8")
    add_users(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Trains, ranks, and runs the canaries."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.canary.experts import train_demo, with_shuffled_labels
    from benchmarks.canary.rankings import rankings_of, rankings_to_make
    from benchmarks.canary.report import summary
    from benchmarks.canary.trials import CanaryTrials
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.timing import progress
    from rankloom_adapters.bundle import open_bundle

    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        folder = Path(name)
        bundle, data = train_demo(folder, args.users)
        requests = rankings_to_make(bundle, args.per_user)
        progress(f"{len(requests)} rankings by the bundle itself")
        own = rankings_of(bundle, requests)
        found = [CanaryTrials("the bundle itself", own, own).run(4 * args.runs)]
        for expert in GROUPS:
            progress(f"training {expert} on shuffled labels")
            other = open_bundle(with_shuffled_labels(bundle, data, expert, folder / expert))
            theirs = rankings_of(other, requests)
            found.append(CanaryTrials(f"{expert}, shuffled labels", theirs, own).run(args.runs))
    result = BenchmarkResult(
        room="canary",
        facts=facts,
        dtype="float32",
        settings={"runs": args.runs, "per_user": args.per_user, "users": args.users},
        figures={"canaries": [each.figures for each in found]},
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
