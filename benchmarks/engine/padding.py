"""Measures what padding passes to few sizes is worth for requests of all lengths.

    python -m benchmarks.engine.padding [--rounds N] [--passes N] [--dtype FORMAT]

Model S with 8 experts; each user has a history of 100 to 300 tokens and 20 candidates of 8 to 16.
oneDNN compiles a kernel for each size and keeps it for the life of the process, so each case runs
in its own process; the cases take turns. One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.arguments import add_dtype, command_line, count, run_command
from benchmarks.common.children import CaseError, run_case
from benchmarks.common.results import BenchmarkResult, RunFacts, write
from benchmarks.common.timing import median_ratio, progress
from rankloom_engine.number_format import cpu_flags, dtype_for

USERS = (1, 4)  # per pass
CASES = ("padded", "exact")
HISTORY, CANDIDATE = (100, 301), (8, 17)  # tokens; the upper bound is exclusive


def main() -> None:
    """Prints the medians and writes the result; with ``--case``, measures one case."""
    parser = command_line("engine.padding", __doc__)
    add_dtype(parser)
    parser.add_argument("--rounds", type=count, default=3, help="default: 3")
    parser.add_argument(
        "--passes",
        type=count,
        default=150,
        help="per round, the first half a warm-up; default: 150",
    )
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.dtype = args.dtype or dtype_for(cpu_flags())
    run_command(lambda: measure_case(args) if args.case else run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if a case fails."""
    facts = RunFacts.now()
    try:
        found = in_turns(args.rounds, args.passes, args.dtype)
    except CaseError as error:
        return str(error)
    result = BenchmarkResult(
        room="engine-padding",
        facts=facts,
        dtype=args.dtype,
        settings={"rounds": args.rounds, "passes": args.passes, "threads": 1},
        figures=figures(found),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")
    return None


def in_turns(rounds: int, passes: int, dtype: str) -> dict[str, list[list[float]]]:
    """CPU-seconds per pass of each case: a list per round, a value per number of users."""
    found: dict[str, list[list[float]]] = {case: [] for case in CASES}
    for number in range(1, rounds + 1):
        for case, rows in found.items():
            progress(f"round {number} of {rounds}: {case}")
            arguments = ["--case", case, "--passes", str(passes), "--dtype", dtype]
            rows.append(run_case("benchmarks.engine.padding", arguments))
    return found


def measure_case(args: argparse.Namespace) -> None:
    """Prints the CPU-seconds of a pass, for each number of users, as JSON."""
    import numpy as np
    import torch

    from benchmarks.common.workload import (
        NUM_EXPERTS,
        SHAPES,
        PromptSizes,
        random_experts,
        random_model,
        random_users,
    )
    from benchmarks.engine.rankloom_engine import RankloomEngine, disable_padding
    from rankloom_engine.memory import keep_freed_memory

    if args.case == "exact":
        disable_padding()
    keep_freed_memory()
    shape, random = SHAPES["S"], np.random.default_rng(0)
    model = random_model(shape, getattr(torch, args.dtype))
    engine = RankloomEngine(model, random_experts(model, NUM_EXPERTS))

    def seconds(num_users: int) -> float:
        sizes = [
            PromptSizes(int(random.integers(*HISTORY)), tokens=int(random.integers(*CANDIDATE)))
            for _ in range(num_users)
        ]
        users = [user for each in sizes for user in random_users(1, shape, each)]
        requests = [engine.request(user, user.candidates) for user in users]
        started = time.process_time()
        engine.forward_once(requests)
        return time.process_time() - started

    with torch.inference_mode():
        times = [[seconds(num) for _ in range(args.passes)] for num in USERS]
    print(json.dumps([statistics.median(each[len(each) // 2 :]) for each in times]))


def figures(found: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Medians of both cases and their ratio, by number of users per pass."""
    rows: dict[str, Any] = {}
    for index, num in enumerate(USERS):
        seconds = {case: [each[index] for each in rounds] for case, rounds in found.items()}
        rows[str(num)] = {
            "exact_ms": round(1e3 * statistics.median(seconds["exact"]), 1),
            "padded_ms": round(1e3 * statistics.median(seconds["padded"]), 1),
            "exact_over_padded": median_ratio(seconds["exact"], seconds["padded"]),
        }
    return {"users_per_pass": rows}


def summary(result: BenchmarkResult) -> str:
    """A row for each number of users per pass."""
    lines = [
        f"| users per pass, {result.dtype} | exact, CPU-ms | padded, CPU-ms | exact ÷ padded |",
        "|---|---|---|---|",
    ]
    for num, row in result.figures["users_per_pass"].items():
        cells = f"{row['exact_ms']:g} | {row['padded_ms']:g} | {row['exact_over_padded']:.2f}"
        lines.append(f"| {num} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
