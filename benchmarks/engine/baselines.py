"""Baselines: ways to score a user's mixture with transformers and PEFT alone.

Each class returns (users, candidates) margins: Yes − No at the last token of the whole prompt.
Their setup favours them: a head of two rows, batches of a user's 20 prompts, and PEFT in the
model's own number format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM

from benchmarks.common.workload import (
    ALPHA,
    NO,
    RANK,
    TARGETS,
    YES,
    SyntheticUser,
    sharing_weights,
)
from rankloom_adapters.expert import Expert

PROMPTS_PER_BATCH = 20
USERS_PER_MIXED_BATCH = 2


class FullPrompts:
    """The base model on every whole prompt, without experts."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        self._model = with_verdict_head(model)

    def margins(self, users: Sequence[SyntheticUser]) -> Tensor:
        """(users, candidates) float32."""
        return torch.stack([full_margins(self._model, user.prompts()) for user in users])


class MergedPerUser:
    """Adds the user's weighted deltas to the base weights, and removes them afterwards."""

    def __init__(self, model: Qwen2ForCausalLM, experts: Sequence[Expert]) -> None:
        self._model = with_verdict_head(model)
        self._projections = [
            MergedProjection(model.get_submodule(name).weight, name, experts)
            for name in experts[0].modules
        ]

    def margins(self, users: Sequence[SyntheticUser]) -> Tensor:
        """(users, candidates) float32."""
        return torch.stack([self._of_user(user) for user in users])

    def _of_user(self, user: SyntheticUser) -> Tensor:
        weights = torch.from_numpy(user.weights)
        for projection in self._projections:
            projection.merge(weights)
        try:
            return full_margins(self._model, user.prompts())
        finally:
            for projection in self._projections:
                projection.restore()


class PeftWeighted:
    """PEFT's ``add_weighted_adapter``: makes an adapter for each user and deletes it."""

    def __init__(self, adapted: PeftModel, combination: str) -> None:
        self._adapted = adapted
        self._combination = combination
        self._at_rest = next(iter(adapted.peft_config))

    def margins(self, users: Sequence[SyntheticUser]) -> Tensor:
        """(users, candidates) float32."""
        return torch.stack([self._of_user(user) for user in users])

    def _of_user(self, user: SyntheticUser) -> Tensor:
        with weighted_adapters(self._adapted, [user], self._combination) as [name]:
            self._adapted.set_adapter(name, inference_mode=True)
            margins = full_margins(self._adapted, user.prompts())
            # PEFT warns when an active adapter is deleted.
            self._adapted.set_adapter(self._at_rest, inference_mode=True)
            return margins


class PeftMixedBatch:
    """PEFT's ``adapter_names``: an exact adapter per user, two users per batch."""

    def __init__(self, adapted: PeftModel) -> None:
        self._adapted = adapted

    def margins(self, users: Sequence[SyntheticUser]) -> Tensor:
        """(users, candidates) float32."""
        starts = range(0, len(users), USERS_PER_MIXED_BATCH)
        groups = [users[at : at + USERS_PER_MIXED_BATCH] for at in starts]
        return torch.cat([self._of_group(group) for group in groups])

    def _of_group(self, users: Sequence[SyntheticUser]) -> Tensor:
        # (candidates, users, tokens), flattened: every batch alternates between the users.
        prompts = torch.stack([user.prompts() for user in users], dim=1)
        with weighted_adapters(self._adapted, users, "cat") as names:
            rows = names * len(prompts)
            margins = full_margins(self._adapted, prompts.flatten(0, 1), rows)
        return margins.view(-1, len(users)).T


class VerdictHead(nn.Module):
    """The two rows of the head that a verdict needs, for (batch, 1, hidden) states.

    The last position of a longer sequence is not contiguous; multiplying it as it is would copy
    the head's weight once per prompt.
    """

    rows: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", weight[[YES, NO]])

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, 1, hidden) → (batch, 1, 2)."""
        return nn.functional.linear(hidden.contiguous(), self.rows)


class MergedProjection:
    """One weight of the model, with the stacked factors of all experts."""

    def __init__(self, weight: Tensor, name: str, experts: Sequence[Expert]) -> None:
        pairs = [expert.modules[name] for expert in experts]
        self._weight, self._original = weight, weight.clone()
        self._a = torch.cat([torch.from_numpy(pair.a) for pair in pairs]).to(weight.dtype)
        self._b = torch.cat([torch.from_numpy(pair.b) for pair in pairs], 1).to(weight.dtype)
        self._scales = torch.tensor([expert.scale for expert in experts])
        self._ranks = torch.tensor([expert.rank for expert in experts])

    def merge(self, weights: Tensor) -> None:
        """W + Σ_k w_k s_k B_k A_k, in place."""
        rows = (weights * self._scales).repeat_interleave(self._ranks)[:, None]
        scaled = self._a * rows.to(self._a.dtype)
        self._weight.copy_(torch.addmm(self._original, self._b, scaled))

    def restore(self) -> None:
        """Writes the original weight back, bit for bit."""
        self._weight.copy_(self._original)


def with_verdict_head(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """The same weights with a head of two rows."""
    shared = sharing_weights(model)
    shared.lm_head = VerdictHead(model.lm_head.weight)
    return shared


def full_margins(
    model: nn.Module, prompts: Tensor, adapter_names: Sequence[str] | None = None
) -> Tensor:
    """(prompts, tokens) ids → (prompts,) float32 margins."""
    logits = []
    for at in range(0, len(prompts), PROMPTS_PER_BATCH):
        rows = slice(at, at + PROMPTS_PER_BATCH)
        named = {} if adapter_names is None else {"adapter_names": list(adapter_names[rows])}
        out = model(input_ids=prompts[rows], use_cache=False, logits_to_keep=1, **named)
        logits.append(out.logits[:, 0].float())
    yes, no = torch.cat(logits).unbind(dim=1)
    return yes - no


def with_adapters(model: Qwen2ForCausalLM, experts: Sequence[Expert]) -> PeftModel:
    """The model with every expert as a PEFT adapter, in the model's own number format."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS))
    first, *others = (expert.name for expert in experts)
    adapted = get_peft_model(
        with_verdict_head(model), config, adapter_name=first, autocast_adapter_dtype=False
    )
    for name in others:
        adapted.add_adapter(name, config, autocast_adapter_dtype=False)
    for expert in experts:
        set_peft_model_state_dict(adapted, _peft_state(expert), adapter_name=expert.name)
    # add_weighted_adapter lacks this argument, and would make each new adapter float32.
    tuner: Any = adapted.base_model
    tuner.inject_adapter = partial(tuner.inject_adapter, autocast_adapter_dtype=False)
    return adapted.eval().requires_grad_(False)


@contextmanager
def weighted_adapters(
    adapted: PeftModel, users: Sequence[SyntheticUser], combination: str
) -> Iterator[list[str]]:
    """Adapters with the users' mixtures, by name; deleted when the block ends."""
    experts = list(adapted.peft_config)
    names = [f"mixture{index}" for index in range(len(users))]
    for name, user in zip(names, users, strict=True):
        adapted.base_model.add_weighted_adapter(
            experts, user.weights.tolist(), name, combination_type=combination
        )
    try:
        yield names
    finally:
        for name in names:
            adapted.delete_adapter(name)


def _peft_state(expert: Expert) -> dict[str, Tensor]:
    return {
        f"base_model.model.{module}.lora_{side}.weight": torch.from_numpy(factor)
        for module, pair in expert.modules.items()
        for side, factor in (("A", pair.a), ("B", pair.b))
    }
