"""Random models, experts and users.

Weights and tokens are random, because only shapes decide how long a forward pass takes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from rankloom_adapters.expert import Expert, Factors

RANK, ALPHA = 8, 16
NUM_EXPERTS = 8
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
B_STD = 0.02
YES, NO = 7, 9  # token ids of the verdicts


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a Qwen2 decoder."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape("S", 256, 6, 4, 2, 2048, 8192, tied=False),
        ModelShape("L4", 896, 4, 14, 2, 4864, 32000, tied=True),
        ModelShape("L", 896, 24, 14, 2, 4864, 32000, tied=True),  # Qwen2.5-0.5B's layers
    )
}


@dataclass(frozen=True, slots=True)
class PromptSizes:
    """Tokens of the history prefix, candidates per user, tokens per candidate."""

    prefix: int = 200
    candidates: int = 20
    tokens: int = 12


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticUser:
    """A user's tokens and mixture.

    ``prefix``: (p,) int64. ``candidates`` and, for a second call, ``later``: (n, c) int64.
    ``weights``: (experts,) float32.
    """

    prefix: NDArray[np.int64]
    candidates: NDArray[np.int64]
    later: NDArray[np.int64]
    weights: NDArray[np.float32]

    def prompts(self) -> Tensor:
        """(n, p + c) int64: the whole prompt of each candidate."""
        prefix = np.broadcast_to(self.prefix, (len(self.candidates), len(self.prefix)))
        return torch.from_numpy(np.concatenate([prefix, self.candidates], axis=1))


def random_model(shape: ModelShape, dtype: torch.dtype) -> Qwen2ForCausalLM:
    """The same weights in every call, up to rounding to ``dtype``."""
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
    model: Qwen2ForCausalLM = Qwen2ForCausalLM(config).to(dtype).eval().requires_grad_(False)
    return model


def sharing_weights(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """Another module tree over the same parameters, for a method that changes modules."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, shared)


def random_experts(model: nn.Module, num: int) -> list[Expert]:
    """Experts on the four attention projections; A ~ N(0, 1/d_in), B ~ N(0, 0.02²)."""
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in TARGETS
    }
    experts = []
    for seed in range(num):
        random = np.random.default_rng(seed)
        modules = {name: _factors(linear, random) for name, linear in linears.items()}
        experts.append(Expert(f"e{seed}", f"{seed:064x}", RANK, ALPHA / RANK, modules))
    return experts


def random_users(
    num: int,
    shape: ModelShape,
    sizes: PromptSizes,
    *,
    num_experts: int = NUM_EXPERTS,
    num_used: int = NUM_EXPERTS,
) -> list[SyntheticUser]:
    """Users with the same tokens whatever the experts; ``num_used`` weights are not zero."""
    tokens, mixtures = np.random.default_rng(1), np.random.default_rng(2)
    candidates = (sizes.candidates, sizes.tokens)
    return [
        SyntheticUser(
            tokens.integers(0, shape.vocabulary, sizes.prefix),
            tokens.integers(0, shape.vocabulary, candidates),
            tokens.integers(0, shape.vocabulary, candidates),
            _random_mixture(mixtures, num_experts, num_used),
        )
        for _ in range(num)
    ]


def _random_mixture(
    random: np.random.Generator, num_experts: int, num_used: int
) -> NDArray[np.float32]:
    """Softmax of N(0, 1) for ``num_used`` random experts, zero for the others."""
    weights = np.zeros(num_experts, dtype=np.float32)
    raised = np.exp(random.standard_normal(num_used))
    weights[random.choice(num_experts, num_used, replace=False)] = raised / raised.sum()
    return weights


def _factors(linear: nn.Linear, random: np.random.Generator) -> Factors:
    d_out, d_in = linear.out_features, linear.in_features
    a = random.standard_normal((RANK, d_in), dtype=np.float32) / np.float32(np.sqrt(d_in))
    b = random.standard_normal((d_out, RANK), dtype=np.float32) * np.float32(B_STD)
    return Factors(a, b)
