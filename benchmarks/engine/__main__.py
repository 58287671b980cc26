"""Compares the engine with other ways to score users' mixtures of experts, and the roofline.

    python -m benchmarks.engine [--models S,L4,L] [--rounds N] [--dtype FORMAT]

Workload: users with a history of 200 tokens and 20 candidates of 12 tokens; 8 experts of rank 8
on the attention projections, all weights non-zero; the score is Yes − No at the last token of a
candidate. Random weights of Qwen2's architecture: S has hidden size 256 and 6 layers; L has the
layers of Qwen2.5-0.5B, 24 of them; L4 has the first 4.

All methods share one process and one model's weights, and take turns round by round. Methods that
read whole prompts score fewer users, so the tables compare rates. Before anything is timed, all
margins are compared in float32 with merged weights and whole prompts.

S and L4 take about six minutes on two cores of a CPU with bf16 units; L takes 20 more.
"""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import add_dtype, command_line, count, run_command

BASELINE_USERS = {"S": 4, "L4": 2, "L": 2}


def main() -> None:
    """Prints the tables and writes the result."""
    args = arguments().parse_args()
    run_command(lambda: run(args))


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = command_line("engine", __doc__)
    add_dtype(parser)
    parser.add_argument("--models", type=model_names, default="S,L4", help="default: S,L4")
    parser.add_argument("--rounds", type=count, default=12, help="default: 12, after a warm-up")
    parser.add_argument("--users", type=count, default=16, help="default: 16")
    parser.add_argument(
        "--baseline-users",
        type=count,
        help="for methods with whole prompts; default: 4 for S, 2 for L4 and L",
    )
    parser.add_argument(
        "--mixtures",
        type=count,
        default=10_000,
        help="over which memory is watched; default: 10000",
    )
    parser.add_argument("--threads", type=count, default=2, help="default: 2")
    return parser


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if the methods disagree."""
    import torch

    from benchmarks.common.results import BenchmarkResult, RunFacts, write
    from benchmarks.common.workload import SHAPES
    from benchmarks.engine.findings import EngineStudy
    from benchmarks.engine.mixture_memory import rss_growth_mib
    from benchmarks.engine.report import figures, tables
    from benchmarks.engine.study import EnginePlan, WrongMarginsError, run_engine_study
    from rankloom_engine.memory import keep_freed_memory
    from rankloom_engine.number_format import cpu_flags, dtype_for

    keep_freed_memory()
    torch.set_num_threads(args.threads)
    facts, name = RunFacts.now(), args.dtype or dtype_for(cpu_flags())
    dtype: torch.dtype = getattr(torch, name)
    studies: dict[str, EngineStudy] = {}
    try:
        with torch.inference_mode():
            growth = rss_growth_mib(args.mixtures, dtype)
            for model in args.models:
                some = min(args.users, args.baseline_users or BASELINE_USERS[model])
                plan = EnginePlan(args.users, some, args.rounds, dtype)
                studies[model] = run_engine_study(SHAPES[model], plan)
    except WrongMarginsError as error:
        return str(error)
    settings = {
        key: getattr(args, key)
        for key in ("models", "rounds", "users", "baseline_users", "mixtures", "threads")
    }
    result = BenchmarkResult(
        room="engine",
        facts=facts,
        dtype=name,
        settings=settings,
        figures=figures(studies, growth),
    )
    print(result.headline(), tables(result), f"written: {write(result, args.results)}", sep="\n\n")
    return None


def model_names(text: str) -> list[str]:
    """Models separated by commas, each once."""
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in BASELINE_USERS]:
        known = ", ".join(BASELINE_USERS)
        raise argparse.ArgumentTypeError(f"no such model: {', '.join(unknown)}; known: {known}")
    return names


if __name__ == "__main__":
    main()
