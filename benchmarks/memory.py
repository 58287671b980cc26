"""What keeping freed memory is worth: training steps a second with and without it.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--json FILE]

Each case runs in a process of its own, because the allocator's settings hold for a
process; the two alternate, and the ratio of medians is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

STEPS, ROUNDS = 6, 3


def measure(keep: bool) -> float:
    """Seconds per step of next-token training, 16 sequences of 480 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rankloom_engine.memory import keep_freed_memory
    from rankloom_training.base import next_token_loss

    if keep:
        keep_freed_memory()
    config = LlamaConfig(
        vocab_size=2048, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    ids = torch.randint(0, 2048, (16, 480))
    next_token_loss(model, ids).backward()
    started = time.process_time()
    for _ in range(STEPS):
        next_token_loss(model, ids).backward()
    return (time.process_time() - started) / STEPS


def main() -> None:
    """Prints the CPU-seconds a step of both cases, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=("keep", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(measure(args.case == "keep"))
        return
    found: dict[str, list[float]] = {"plain": [], "keep": []}
    for _ in range(ROUNDS):
        for case, seconds in found.items():
            command = [sys.executable, __file__, "--case", case]
            seconds.append(float(subprocess.check_output(command, text=True)))
    medians = {case: statistics.median(seconds) for case, seconds in found.items()}
    ratio = medians["plain"] / medians["keep"]
    print(f"CPU-seconds a step: plain {medians['plain']:.3f}, keep {medians['keep']:.3f}")
    print(f"plain / keep: {ratio:.2f}")
    if args.json is not None:
        args.json.write_text(json.dumps({"ratios": {"plain_over_keep_cpu": ratio}}) + "\n")


if __name__ == "__main__":
    main()
