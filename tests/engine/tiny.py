"""Tiny models, experts and prompts for the engine's tests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from rankloom_adapters.expert import Expert, Factors
from rankloom_engine.expert_bank import MixtureWeights, install
from rankloom_engine.model import Decoder
from rankloom_engine.packing import Segment
from rankloom_engine.projector import Projector

HIDDEN, VOCABULARY, LATENT, COLUMNS = 32, 96, 8, 5
TARGETS = ("q_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class TinyItem:
    """An item as text."""

    title: str = ""
    year: int | None = None
    attributes: tuple[str, ...] = ()
    description: str = ""


def tiny_model(seed: int = 0, num_layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.15,  # large enough that an error in the arithmetic shows
    )
    return LlamaForCausalLM(config).eval()


def random_expert(
    name: str, model: nn.Module, rank: int, seed: int, targets: Sequence[str] = TARGETS
) -> Expert:
    random = np.random.default_rng(seed)
    modules = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and path.rsplit(".")[-1] in targets:
            a = random.normal(0, 0.3, (rank, module.in_features)).astype(np.float32)
            b = random.normal(0, 0.3, (module.out_features, rank)).astype(np.float32)
            modules[path] = Factors(a, b)
    return Expert(name, f"{seed:064x}", rank, 2.0 / rank, modules)


def tiny_decoder(
    ranks: Sequence[int] = (4, 8, 2),
    seed: int = 0,
    modules: Sequence[str] = TARGETS,
    num_layers: int = 3,
) -> tuple[Decoder, list[Expert]]:
    model = tiny_model(seed, num_layers)
    torch.manual_seed(seed + 1)
    projector = Projector(LATENT, COLUMNS, HIDDEN).eval()
    experts = [random_expert(f"e{n}", model, rank, n, modules) for n, rank in enumerate(ranks)]
    decoder = Decoder(model, projector, yes=3, no=4)
    decoder.bank = install(model, experts)
    return decoder, experts


def random_segment(random: np.random.Generator, length: int, *, soft: bool = True) -> Segment:
    parts = [Segment.of_ids(random.integers(0, VOCABULARY, length).tolist())]
    if soft:
        parts.append(Segment.of_latent(random.normal(size=LATENT).astype(np.float32)))
        parts.append(Segment.of_tabular(random.normal(size=COLUMNS).astype(np.float32)))
    return Segment.joined([*parts, Segment.of_ids([1])])


def weights_of(random: np.random.Generator, num: int) -> MixtureWeights:
    """A random mixture, all weights positive."""
    values = np.exp(random.normal(size=num))
    return MixtureWeights((values / values.sum()).astype(np.float32))


@torch.inference_mode()
def plain_margin(decoder: Decoder, ids: Sequence[int]) -> float:
    """Yes − No at the end of a full prompt, by transformers' own forward."""
    model = copy.deepcopy(decoder.model)
    model.set_attn_implementation("eager")
    logits = model(torch.tensor([list(ids)])).logits[0, -1]
    return float(logits[3] - logits[4])
