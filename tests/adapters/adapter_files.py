"""Adapters in PEFT's format: one written by peft, and altered copies of it."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import safetensors.numpy
import torch
from transformers import LlamaConfig, LlamaForCausalLM

RANK, ALPHA, HIDDEN, LAYERS = 4, 12, 16, 2
PREFIX = "base_model.model."
FIRST = "model.layers.0.self_attn.q_proj"
FIRST_A, FIRST_B = (f"{PREFIX}{FIRST}.lora_{side}.weight" for side in "AB")
Header = dict[str, Any]


@dataclass(frozen=True)
class AdapterFiles:
    """The bytes of an adapter's two files."""

    config: bytes
    weights: bytes

    def with_config(self, **fields: object) -> bytes:
        """The config with some fields set."""
        return json.dumps(json.loads(self.config) | fields).encode()

    def tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """A copy of the tensors by name."""
        return {name: array.copy() for name, array in safetensors.numpy.load(self.weights).items()}


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=HIDDEN,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return LlamaForCausalLM(config)


def write_with_peft(folder: Path) -> AdapterFiles:
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=["q_proj", "v_proj"],
        bias="none",
        init_lora_weights=False,
    )
    with warnings.catch_warnings():
        # peft reads an attribute that transformers has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        peft.get_peft_model(tiny_llama(), config).save_pretrained(str(folder))
    return AdapterFiles(
        (folder / "adapter_config.json").read_bytes(),
        (folder / "adapter_model.safetensors").read_bytes(),
    )


def split_file(weights: bytes) -> tuple[Header, bytes]:
    """Header and payload of a safetensors file."""
    length = int.from_bytes(weights[:8], "little")
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


def joined_file(header: Header | bytes, payload: bytes) -> bytes:
    """A safetensors file of any header and payload, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def with_entry(weights: bytes, name: str, **fields: object) -> bytes:
    """The file with fields of one tensor's header entry changed."""
    header, payload = split_file(weights)
    return joined_file(header | {name: header[name] | fields}, payload)
