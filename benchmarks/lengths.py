"""What passes of few sizes are worth: requests of all lengths, padded and as they are.

    OMP_NUM_THREADS=1 python benchmarks/lengths.py [--json FILE]

Model S of engine.py in bfloat16, 8 experts; each user has a history of 100 to 300 tokens
and 20 candidates of 8 to 16. Kernels that were made for a size are kept by the process,
so each case runs in one of its own; the cases take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROUNDS, PASSES, USERS = 3, 150, (1, 4)
HISTORY, CANDIDATE = (100, 301), (8, 17)  # tokens, from and below


def measure(*, padded: bool) -> list[float]:
    """CPU-seconds of a pass, for each number of users: the median of the later half."""
    import torch
    from subject import Engine
    from workload import NUM_EXPERTS, SHAPES, Sizes, random_experts, random_model, random_users

    from rankloom_engine import model as engine_model
    from rankloom_engine.memory import keep_freed_memory

    if not padded:
        engine_model.bucket = lambda size: size
    keep_freed_memory()
    shape, random = SHAPES["S"], np.random.default_rng(0)
    model = random_model(shape, torch.bfloat16)
    engine = Engine(model, random_experts(model, NUM_EXPERTS))

    def seconds(num_users: int) -> float:
        sizes = [
            Sizes(int(random.integers(*HISTORY)), tokens=int(random.integers(*CANDIDATE)))
            for _ in range(num_users)
        ]
        users = [user for each in sizes for user in random_users(1, shape, each)]
        asks = [engine.ask(user, user.candidates) for user in users]
        started = time.process_time()
        engine.answers_of_pass(asks)
        return time.process_time() - started

    return [statistics.median([seconds(n) for _ in range(PASSES)][PASSES // 2 :]) for n in USERS]


def main() -> None:
    """Prints the medians, and how many times as long a pass takes without padding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=("padded", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(padded=args.case == "padded")))
        return
    ratios = report(in_turns())
    if args.json is not None:
        args.json.write_text(json.dumps({"ratios": ratios}) + "\n", encoding="utf-8")


def in_turns() -> dict[str, list[list[float]]]:
    """What each case measured in each round."""
    found: dict[str, list[list[float]]] = {"padded": [], "plain": []}
    for number in range(1, ROUNDS + 1):
        for case, rows in found.items():
            print(f"round {number} of {ROUNDS}: {case}", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--case", case]
            rows.append(json.loads(subprocess.check_output(command, text=True)))
    return found


def report(found: dict[str, list[list[float]]]) -> dict[str, float]:
    """Prints a line for each number of users; gives as they are ÷ padded."""
    medians = {case: np.median(rows, axis=0) for case, rows in found.items()}
    ratios = {}
    for place, num in enumerate(USERS):
        plain, padded = float(medians["plain"][place]), float(medians["padded"][place])
        ratios[f"plain_over_padded_{num}"] = round(plain / padded, 3)
        print(
            f"{num} users a pass: {1e3 * plain:.1f} ms of CPU as they are, "
            f"{1e3 * padded:.1f} padded, {plain / padded:.2f}"
        )
    return ratios


if __name__ == "__main__":
    main()
