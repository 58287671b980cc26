"""The LoRA of generators: RecCoT's rank, on all linear layers, since the small decoder has few."""

from __future__ import annotations

import warnings
from typing import Any

from peft import LoraConfig, get_peft_model

RANK, ALPHA, DROPOUT = 8, 16, 0.05


def lora_config() -> LoraConfig:
    return LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=DROPOUT,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def in_low_rank(model: Any, config: LoraConfig) -> Any:  # noqa: ANN401
    """The model with frozen weights, and LoRA to train beside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        return get_peft_model(model, config)
