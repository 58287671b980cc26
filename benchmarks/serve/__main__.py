"""Measures what a server costs around the engine: `Rank` over gRPC beside the engine alone.

    python -m benchmarks.serve [--seconds S] [--pairs N] [--rounds N] [--dtype FORMAT]

Workload: users with a history of about 200 tokens and 20 candidates of 12 tokens, 8 experts of
rank 8 on the attention projections; the models are those of benchmarks.engine. Catalogue,
features, trees and tokenizer are trained on the embedded data, which takes some minutes; decoder,
experts and projector are random. Neither side keeps prefixes.

`rankloom serve`, its callers and the engine alone run in their own processes, and the two sides
take turns round by round. Only the CPU time of the process that answers counts, not that of the
callers. Before anything is timed, the scores of both sides are compared.

The default, 12 rounds with six pairs of processes, takes a quarter of an hour.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import (
    add_dtype,
    add_users,
    command_line,
    count,
    duration,
    run_command,
)

MODELS = ("S", "L4", "L")


def main() -> None:
    """Prints the tables and writes the result."""
    args = arguments().parse_args()
    run_command(lambda: run(args))


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_line("serve", __doc__)
    add_dtype(parser)
    parser.add_argument(
        "--seconds", type=duration, default=5.0, help="per phase, 5 to a round; default: 5"
    )
    parser.add_argument("--pairs", type=count, default=6, help="fresh processes; default: 6")
    parser.add_argument("--rounds", type=count, default=2, help="per pair; default: 2")
    add_users(parser)
    parser.add_argument("--threads", type=count, default=2, help="of the model; default: 2")
    parser.add_argument("--model", choices=MODELS, default="S", help="default: S")
    return parser


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if the two sides disagree."""
    from dataclasses import asdict
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch

    from benchmarks.common.bundles import calls_of, make_bundle
    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.workload import SHAPES
    from benchmarks.serve.in_process import server_settings
    from benchmarks.serve.processes import WorkerError
    from benchmarks.serve.report import figures, tables
    from benchmarks.serve.study import ScoresDifferError, ServePlan, run_serve_study
    from rankloom_engine.number_format import cpu_flags, dtype_for
    from rankloom_training.serving import ServerStartError

    torch.set_num_threads(args.threads)
    facts, dtype = RunFacts.now(), args.dtype or dtype_for(cpu_flags())
    plan = ServePlan(args.seconds, args.pairs, args.rounds)
    with TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), SHAPES[args.model], args.users)
        settings = server_settings(bundle, dtype, args.threads)
        try:
            found = run_serve_study(settings, calls_of(bundle), plan)
        except (ScoresDifferError, WorkerError, ServerStartError) as error:
            return str(error)
    asked = {key: getattr(args, key) for key in ("model", "threads", "users")}
    result = BenchmarkResult(
        room="serve",
        facts=facts,
        dtype=dtype,
        settings={**asked, **asdict(plan)},
        figures=figures(found),
    )
    print(result.headline(), tables(result), f"written: {write(result, args.results)}", sep="\n\n")
    return None


if __name__ == "__main__":
    main()
