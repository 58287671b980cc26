"""The same arithmetic with fewer passes over memory, for bf16 decoders on CPUs.

oneDNN multiplies by weights in a layout that it makes once, and applies activation and
product of a gated unit while it writes the result. Each replacement is tried on random
numbers first, and made only if it agrees with the module that it replaces: a module that
computes something else is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

_ROWS = 256  # oneDNN chooses its layout for these; measured as good as any from 5 to 2000
_TRIAL_TOKENS = 16
_BF16_ERROR = 2**-6  # of the largest value: a few roundings
_ops = cast("Any", torch.ops.mkldnn)


class PackedLinear(nn.Module):
    """A linear layer whose weights have oneDNN's layout; the original weights are freed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._packed: Tensor = _ops._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, d_in) → (…, d_out)."""
        return self.then(hidden, "none")

    def then(self, hidden: Tensor, activation: str) -> Tensor:
        """The layer's output through one of oneDNN's activations."""
        out: Tensor = _ops._linear_pointwise(hidden, self._packed, self.bias, activation, [], "")
        return out

    def times(self, hidden: Tensor, other: Tensor) -> Tensor:
        """The layer's output times a tensor of its shape."""
        out: Tensor = _ops._linear_pointwise.binary(hidden, other, self._packed, self.bias, "mul")
        return out


class _GatedUnit(nn.Module):
    """down(silu(gate(x)) · up(x)), the feed-forward unit of Llama's family."""

    def __init__(self, mlp: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = map(
            PackedLinear, (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        gate = self.gate_proj.then(hidden, "swish")
        return cast("Tensor", self.down_proj(self.up_proj.times(hidden, gate)))


class _RootMeanSquareNorm(nn.Module):
    """weight · x / √(mean(x²) + ε), with one copy of x instead of four."""

    def __init__(self, norm: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.weight = norm.weight
        self.epsilon: float = getattr(norm, "variance_epsilon", None) or norm.eps

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        total = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        wide.mul_(total.div_(hidden.shape[-1]).add_(self.epsilon).rsqrt_())
        return wide.to(hidden.dtype).mul_(self.weight)


def speed_up(model: nn.Module, leave: Sequence[nn.Module] = ()) -> bool:
    """Replaces modules of a bf16 decoder on a CPU, in place; returns whether it can.

    Call it after the experts are wired: they keep the layers that they wrap. ``leave``:
    modules that are kept, with everything inside.
    """
    weight = cast("Any", model).get_input_embeddings().weight
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return False
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    head = cast("Any", model).get_output_embeddings()
    left = {head, *(module for region in leave for module in region.modules())}
    for replacement in (_gated_unit, _norm, _linear):
        for name, module in list(model.named_modules()):
            faster = None if module in left else replacement(module)
            if faster is not None:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, faster)
    return True


def _gated_unit(module: Any) -> nn.Module | None:  # noqa: ANN401
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(part, nn.Linear) for part in parts):
        return None
    return _tried(module, lambda: _GatedUnit(module), module.gate_proj.in_features)


def _norm(module: Any) -> nn.Module | None:  # noqa: ANN401
    if not type(module).__name__.endswith("RMSNorm") or not hasattr(module, "weight"):
        return None
    return _tried(module, lambda: _RootMeanSquareNorm(module), len(module.weight))


def _linear(module: nn.Module) -> nn.Module | None:
    if type(module) is not nn.Linear:
        return None
    linear = module
    return _tried(module, lambda: PackedLinear(linear), linear.in_features)


@torch.inference_mode()
def _tried(module: nn.Module, make: Callable[[], nn.Module], width: int) -> nn.Module | None:
    """The faster module if its output agrees with the module's, else None."""
    hidden = torch.randn(1, _TRIAL_TOKENS, width, generator=torch.Generator().manual_seed(0))
    hidden = hidden.bfloat16()
    try:
        faster = make()
        found, expected = faster(hidden), module(hidden)
    except (RuntimeError, AttributeError, TypeError):
        return None
    bound = _BF16_ERROR * float(expected.abs().max())
    agrees = found.shape == expected.shape and float((found - expected).abs().max()) <= bound
    return faster if agrees else None
