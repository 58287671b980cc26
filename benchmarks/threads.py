"""How idle threads should wait: training steps of two threads, alone and beside a busy process.

    python benchmarks/threads.py [--json FILE]

They spin until the next operation, sleep at once (as a server's do), or spin briefly before they
sleep (as learning does). Each case runs in a process of its own, because OpenMP reads its
policy once; the cases alternate, alone and beside one process that never rests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rankloom_engine.threads import SPINS

ROUNDS = 3
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
WAYS = {
    "sleeping": {"OMP_WAIT_POLICY": "passive"},
    "briefly": {"GOMP_SPINCOUNT": SPINS},
    "spinning": {"OMP_WAIT_POLICY": "active"},
}
STEP = """
import time, torch
from rankloom_engine.memory import keep_freed_memory
from rankloom_training.base import next_token_loss
from transformers import LlamaConfig, LlamaForCausalLM
keep_freed_memory()
torch.set_num_threads(2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=2048, hidden_size=128, intermediate_size=384,
    num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)).train()
ids = torch.randint(0, 2048, (16, 480))
next_token_loss(model, ids).backward()
started = time.perf_counter()
for _ in range(4):
    next_token_loss(model, ids).backward()
print((time.perf_counter() - started) / 4)
"""


@contextlib.contextmanager
def busy(num: int) -> Iterator[None]:
    """So many processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def step_s(waiting: str) -> float:
    """Wall seconds of a training step whose threads wait so."""
    environment = {k: v for k, v in os.environ.items() if k not in NAMES} | WAYS[waiting]
    command = [sys.executable, "-c", STEP]
    return float(subprocess.check_output(command, env=environment, text=True))


def main() -> None:
    """Prints the medians, and each way's ÷ that of sleeping threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ratios: dict[str, dict[str, float]] = {}
    for name, num in (("alone", 0), ("beside a busy process", 1)):
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        with busy(num):
            for _ in range(ROUNDS):
                for way, seconds in found.items():
                    seconds.append(step_s(way))
        medians = {way: statistics.median(seconds) for way, seconds in found.items()}
        ratios[name] = {way: each / medians["sleeping"] for way, each in medians.items()}
        for way, each in medians.items():
            ratio = ratios[name][way]
            print(f"{name}, {way}: {each:.3f} s a step, ÷ sleeping {ratio:.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
