"""The LoRA of generators, as in RecCoT's code."""

from __future__ import annotations

from peft import LoraConfig

RANK, ALPHA, DROPOUT = 8, 16, 0.05


def lora_config() -> LoraConfig:
    """On PEFT's usual modules of the architecture: mostly queries and values."""
    return LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, task_type="CAUSAL_LM")
