"""Measures what features cost beside their floor, and how soon an event counts.

    python -m benchmarks.features [--num N] [--users N]

A server of a bundle that was trained on the embedded data, which takes some minutes; its events are
in SQLite, server and caller in one process. In turns: user vectors of a batch beside the bare
onnxruntime session; one user's features over loopback beside an empty call (health); 256 users in
one call beside one; RecordEvents and then Rank, for one user after the other.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_users, command_line, count, run_command


def main() -> None:
    """Prints the table and writes the result."""
    parser = command_line("features", __doc__)
    parser.add_argument("--num", type=count, default=200, help="calls of a kind; default: 200")
    add_users(parser)
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    import asyncio
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.bundles import train_embedded
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.features.report import figures, summary
    from benchmarks.features.study import run_features_study
    from rankloom_engine.memory import keep_freed_memory
    from rankloom_server import logs

    keep_freed_memory()  # as servers do
    logs.configure("error")
    facts = RunFacts.now()
    with TemporaryDirectory() as name:
        bundle = train_embedded(Path(name), args.users)
        found = asyncio.run(run_features_study(bundle, args.num))
    result = BenchmarkResult(
        room="features",
        facts=facts,
        dtype="float32",
        settings={"num": args.num, "users": args.users},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")


if __name__ == "__main__":
    main()
