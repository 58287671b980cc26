"""Measures training throughput: how idle threads should wait, and whether to keep freed memory.

    python -m benchmarks.training [--rounds N] [--steps N]

Next-token training of a small decoder (hidden size 128, 4 layers) on 16 sequences of 480 tokens, in
float32, since bf16 autocast is slower at this size.

Threads: two threads that, between operations, sleep at once (as a server's do), spin briefly and
then sleep (as training does), or spin; alone and beside a process that never rests.
Memory: one thread, with glibc's defaults or with freed memory kept in the process.

Each case runs in its own process, because both settings hold for a whole process. The cases take
turns. About two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.common.arguments import command_line, count, run_command
from benchmarks.common.children import CaseError, run_case
from benchmarks.common.results import BenchmarkResult, RunFacts, write
from benchmarks.common.timing import progress
from benchmarks.training.report import figures, summary
from rankloom_engine.threads import SPINS

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
WAITING = {
    "sleeping": {"OMP_WAIT_POLICY": "passive"},
    "briefly": {"GOMP_SPINCOUNT": SPINS},
    "spinning": {"OMP_WAIT_POLICY": "active"},
}
NUM_BUSY = {"alone": 0, "beside_busy_process": 1}
MEMORY: dict[str, list[str]] = {"returned": ["--return-memory"], "kept": []}

Times = dict[str, list[float]]


def main() -> None:
    """Prints the tables and writes the result."""
    parser = command_line("training", __doc__)
    parser.add_argument("--rounds", type=count, default=3, help="default: 3")
    parser.add_argument("--steps", type=count, default=4, help="per round; default: 4")
    args = parser.parse_args()
    run_command(lambda: run(args))


def run(args: argparse.Namespace) -> str | None:
    """Returns a message if a case fails."""
    facts = RunFacts.now()
    try:
        waiting = {name: waiting_times(args, name) for name in NUM_BUSY}
        memory = memory_times(args)
    except CaseError as error:
        return str(error)
    result = BenchmarkResult(
        room="training",
        facts=facts,
        dtype="float32",
        settings={"rounds": args.rounds, "steps": args.steps, "spins": SPINS},
        figures=figures(waiting, memory),
    )
    print(result.headline(), summary(result), f"written: {write(result, args.results)}", sep="\n\n")
    return None


def waiting_times(args: argparse.Namespace, name: str) -> Times:
    """Wall seconds of a step for each way to wait, a value per round."""
    found: Times = {way: [] for way in WAITING}
    inherited = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    with busy(NUM_BUSY[name]):
        for number in range(1, args.rounds + 1):
            for way, seconds in found.items():
                progress(f"threads {name}, round {number} of {args.rounds}: {way}")
                arguments = ["--steps", str(args.steps), "--threads", "2"]
                seconds.append(step(arguments, inherited | WAITING[way])["wall_s"])
    return found


def memory_times(args: argparse.Namespace) -> Times:
    """CPU-seconds of a step with freed memory returned and kept, a value per round."""
    found: Times = {case: [] for case in MEMORY}
    for number in range(1, args.rounds + 1):
        for case, seconds in found.items():
            progress(f"memory, round {number} of {args.rounds}: {case}")
            arguments = ["--steps", str(args.steps), "--threads", "1", *MEMORY[case]]
            seconds.append(step(arguments, dict(os.environ))["cpu_s"])
    return found


def step(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds of a step in a process with this environment. Raises CaseError."""
    found: dict[str, float] = run_case("benchmarks.training.step", arguments, environment)
    return found


@contextlib.contextmanager
def busy(num: int) -> Iterator[None]:
    """Runs ``num`` processes that never rest; kills them when the block ends."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command, start_new_session=True) for _ in range(num)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
