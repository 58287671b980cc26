"""Decoders of many families, tiny: rotary and learned positions, grouped queries, windows."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from engine.tiny import VOCABULARY

FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "llama tied": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen2 sliding": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": None},
    "mistral sliding": {"sliding_window": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "gpt_neox": {},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64, "max_position_embeddings": 512},
    "phi": {},
    "phi3": {},
    "olmo2": {},
    "stablelm": {},
}


def tiny_family(name: str, **fields: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name.split()[0], vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
