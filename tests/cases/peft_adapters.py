"""Adapters that PEFT writes for a tiny model, and what PEFT and this project make of them."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rankloom_adapters.expert_files import read_expert
from rankloom_engine.expert_bank import MixtureWeights, install

TOKENS = torch.arange(24).view(2, 12) % 64


@functools.cache
def _base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    # Weights large enough that an adapter left out changes the logits.
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, initializer_range=0.3)).eval()


def base() -> LlamaForCausalLM:
    """A fresh copy: two layers, hidden size 32."""
    return copy.deepcopy(_base())


@contextmanager
def quiet() -> Iterator[None]:
    """PEFT warns of what the tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def adapted(**fields: object) -> peft.PeftModel:
    """A model with a random adapter; ``fields``: of peft.LoraConfig."""
    torch.manual_seed(1)
    usual: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    with quiet():
        model = peft.get_peft_model(base(), peft.LoraConfig(**(usual | fields)))
    scatter(model)
    return model


def scatter(model: peft.PeftModel) -> None:
    """Gives all factors random values, as a training would."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)


def save(model: peft.PeftModel, folder: Path) -> Path:
    with quiet():
        model.save_pretrained(str(folder))
    return folder


@torch.inference_mode()
def peft_logits(folder: Path) -> Tensor:
    with quiet():
        model = peft.PeftModel.from_pretrained(base(), str(folder))
    logits: Tensor = model(input_ids=TOKENS).logits
    return logits


@torch.inference_mode()
def our_logits(folder: Path) -> Tensor:
    """Through the layer that serves, with the whole weight on the expert."""
    model = base()
    bank = install(model, [read_expert("mine", folder).expert])
    rows = [MixtureWeights(np.ones(1, dtype=np.float32))] * len(TOKENS)
    with bank.weighted(rows, [TOKENS.shape[1]] * len(TOKENS)):
        logits: Tensor = model(input_ids=TOKENS).logits
    return logits


@torch.inference_mode()
def base_logits() -> Tensor:
    logits: Tensor = base()(input_ids=TOKENS).logits
    return logits
