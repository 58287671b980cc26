"""Measures what a server still answers in time when it is asked for more than it can do.

    python -m benchmarks.overload [--seconds S] [--rounds N] [--bundle FOLDER]

A real `rankloom serve` with the default limit of calls in flight. The peak is what 16 callers get
who wait for each answer. Then calls with a deadline of 2 seconds are due at fixed times, at 1.1 to
5 times the peak, whether earlier ones have been answered or not. Goodput is the number of answers
per second that come before their deadline. Every load is measured right after a peak of its own,
so that both meet the same load of the machine. No prefixes are cached, so every call costs the
same.

Features and trees of the bundle are trained on a part of the embedded data, which takes a minute;
the decoder is random, with 2 layers. The default takes 5 minutes.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import (
    add_bundle,
    add_dtype,
    command_line,
    count,
    duration,
    run_command,
)


def main() -> None:
    """Prints the tables and writes the result."""
    parser = command_line("overload", __doc__)
    add_dtype(parser)
    add_bundle(parser)
    parser.add_argument("--seconds", type=duration, default=15.0, help="of each load; default: 15")
    parser.add_argument("--rounds", type=count, default=2, help="default: 2")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if the server did not start, or a process ended."""
    from dataclasses import asdict
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from benchmarks.common.bundles import calls_of
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.small_bundle import make_small_bundle
    from benchmarks.overload.report import figures, tables
    from benchmarks.overload.study import OverloadPlan, run_overload_study
    from benchmarks.serve.in_process import server_settings
    from benchmarks.serve.processes import WorkerError
    from rankloom_engine.number_format import cpu_flags, dtype_for
    from rankloom_training.serving import ServerStartError

    facts, dtype = RunFacts.now(), args.dtype or dtype_for(cpu_flags())
    plan = OverloadPlan(args.seconds, args.rounds)
    with TemporaryDirectory() as folder:
        bundle = args.bundle or make_small_bundle(Path(folder))
        settings = server_settings(bundle, dtype, threads=1)
        try:
            found = run_overload_study(settings, calls_of(bundle), plan)
        except (WorkerError, ServerStartError) as error:
            return str(error)
    result = BenchmarkResult(
        room="overload",
        facts=facts,
        dtype=dtype,
        settings=asdict(plan) | {"bundle": args.bundle.name if args.bundle else "small"},
        figures=figures(found),
    )
    print(result.headline(), tables(result), f"written: {write(result, args.results)}", sep="\n\n")
    return None


if __name__ == "__main__":
    main()
