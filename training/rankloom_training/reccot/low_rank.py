"""The LoRA of generators: RecCoT's rank, on all linear layers, since the small decoder has few."""

from __future__ import annotations

from peft import LoraConfig

RANK, ALPHA, DROPOUT = 8, 16, 0.05


def lora_config() -> LoraConfig:
    return LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
