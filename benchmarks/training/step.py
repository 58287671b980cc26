"""Times training steps in a process of its own, and prints CPU and wall seconds as JSON.

Started by benchmarks.training, with what is compared in the environment or the arguments.
"""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.common.arguments import run_command

ROWS, TOKENS, VOCABULARY = 16, 480, 2048


def main() -> None:
    """The times of one step: the mean over ``--steps``, after one that is not counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--return-memory", action="store_true", help="keep glibc's defaults")
    args = parser.parse_args()
    # The environment is what is compared.
    run_command(lambda: measure(args), set_environment=False)


def measure(args: argparse.Namespace) -> None:
    """Next-token training of a small Llama in float32, 16 sequences of 480 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rankloom_engine import attention
    from rankloom_engine.memory import keep_freed_memory
    from rankloom_training.embedded import lesson, next_token_loss

    if not args.return_memory:
        keep_freed_memory()
    torch.set_num_threads(args.threads)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).train()
    attention.wire(model)
    ids = torch.randint(0, VOCABULARY, (ROWS, TOKENS)).tolist()
    lessons = [lesson(row) for row in ids]
    next_token_loss(model, lessons).backward()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(args.steps):
        next_token_loss(model, lessons).backward()
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"cpu_s": cpu_s / args.steps, "wall_s": wall_s / args.steps}))


if __name__ == "__main__":
    main()
