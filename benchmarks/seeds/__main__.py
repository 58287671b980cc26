"""Compares what several bundles serve with the scores of their own parts, as a mean over them.

    python -m benchmarks.seeds BUNDLE... [--against BUNDLE...] --data DATA [--protocol p0|p1]

The bundles are trainings of one log that differ in their seed. Each one's served score, through
gRPC, is compared with its trees' and its global expert's on all test rows, and with that of the
bundle of the same seed among those after --against, as of trainings with another option.
Differences are means over the bundles, paired, with a bootstrap over users.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common.arguments import bundle_folder, command_line, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("seeds", __doc__)
    parser.add_argument("bundles", nargs="+", type=bundle_folder, metavar="BUNDLE")
    parser.add_argument(
        "--against", nargs="+", type=bundle_folder, default=[], metavar="BUNDLE", help="in order"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DATA")
    parser.add_argument("--protocol", choices=("p0", "p1"), default="p1", help="default: p1")
    parser.add_argument(
        "--in-process", action="store_true", help="score in this process, without a server"
    )
    args = parser.parse_args()
    if args.against and len(args.against) != len(args.bundles):
        parser.error("--against: name as many bundles as before it, in the order of their seeds")
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Scores, prints and writes."""
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.seeds.study import figures_of, scored_by, summary
    from rankloom_training.visibility import Protocol

    facts, protocol = RunFacts.now(), Protocol(args.protocol)
    found, others = (
        scored_by(bundles, args.data, protocol, through_grpc=not args.in_process)
        for bundles in (args.bundles, args.against)
    )
    result = BenchmarkResult(
        room="seeds",
        facts=facts,
        dtype="float32",
        settings={
            "rows": len(found[0].rows),
            "protocol": args.protocol,
            "bundles": len(found),
            "through_grpc": not args.in_process,
        },
        figures=figures_of(found, others),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
