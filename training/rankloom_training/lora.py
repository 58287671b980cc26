"""LoRA's products for training: one product forward, and gradients in low rank.

PEFT computes ``x W' + s (x A') B'``. The same is ``x (W + s B A)'``: one product instead of three,
and no intermediate values of the size of the layer's output. The gradients of A and B need no
gradient of W.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

ADAPTER = "default"


class _LowRankProduct(torch.autograd.Function):
    """``x (W + s B A)' + bias`` for x (tokens, in), W (out, in), A (rank, in) and B (out, rank)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        a: Tensor,
        b: Tensor,
        layer: nn.Linear,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(x, a, b)
        ctx.layer, ctx.scale = layer, scale
        return functional.linear(x, _merged(layer, a, b, scale), layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = gradients
        x, a, b = ctx.saved_tensors
        needs_x, needs_a, needs_b = ctx.needs_input_grad[:3]
        scaled = ctx.scale * gradient if needs_a or needs_b else gradient
        return (
            gradient @ _merged(ctx.layer, a, b, ctx.scale) if needs_x else None,
            (scaled @ b).T @ x if needs_a else None,
            scaled.T @ (x @ a.T) if needs_b else None,
            None,
            None,
        )


def _merged(layer: nn.Linear, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return torch.addmm(layer.weight, b, a, alpha=scale)


def train_in_low_rank(adapted: nn.Module) -> None:
    """Has PEFT's LoRA layers compute their product in one, where weights and LoRA are float32.

    In a narrower format the sum of weights and LoRA would be rounded; such layers stay as they are.
    """
    for module in adapted.modules():
        if isinstance(module, LoraLinear) and _fits(module):
            module.forward = partial(_forward, module)


def _fits(module: LoraLinear) -> bool:
    layer = module.get_base_layer()
    return isinstance(layer, nn.Linear) and layer.weight.dtype == torch.float32


def _forward(module: LoraLinear, x: Tensor) -> Tensor:
    layer = cast("nn.Linear", module.get_base_layer())
    a, b = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
    apply = cast("Callable[..., Tensor]", _LowRankProduct.apply)
    product = apply(x.flatten(0, -2), a, b, layer, module.scaling[ADAPTER])
    return cast("Tensor", cast("Any", product).unflatten(0, x.shape[:-1]))
