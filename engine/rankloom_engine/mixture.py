"""The mixture layer: every row of a batch goes through its own weighted sum of experts.

y = x W + ((x A) ⊙ (w_row · s)) B, where A and B are the experts' factors side by side:
exactly Σ_k w_k s_k B_k A_k per row, for any ranks and any number of different rows, in
two small matrix products. (PEFT's "linear" combination multiplies two sums instead and
so has cross terms B_i A_j.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankloom_adapters.expert import Expert, Factors, check_shapes


@dataclass(slots=True, eq=False)
class _Columns:
    """Which expert each stacked column belongs to, and the rows' scales while one runs.

    ``expert``: (R,) int64, ``scale``: (R,). ``rows``: (batch, R), set by ``weighted``.
    """

    expert: Tensor
    scale: Tensor
    rows: Tensor | None = None


class MixtureLinear(nn.Module):
    """A linear layer with K stacked low-rank experts."""

    stacked_a: Tensor
    stacked_b: Tensor

    def __init__(self, base: nn.Linear, factors: Sequence[Factors], columns: _Columns) -> None:
        super().__init__()
        self.base = base
        self._columns = columns
        a = torch.cat([torch.from_numpy(pair.a) for pair in factors]).T
        b = torch.cat([torch.from_numpy(pair.b) for pair in factors], dim=1).T
        like = base.weight
        self.register_buffer("stacked_a", a.to(like.device, like.dtype).contiguous())
        self.register_buffer("stacked_b", b.to(like.device, like.dtype).contiguous())

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, length, d_in) → (batch, length, d_out)."""
        out: Tensor = self.base(hidden)
        rows = self._columns.rows
        if rows is None:
            return out
        scaled = (hidden @ self.stacked_a) * rows[:, None, :].to(hidden.dtype)
        return out + scaled @ self.stacked_b


class Mixture:
    """The experts wired into a model. Only one thread may use the model at a time."""

    def __init__(self, columns: Sequence[_Columns], num_experts: int) -> None:
        self._columns = columns
        self.num_experts = num_experts

    @contextmanager
    def weighted(self, weights: Tensor) -> Iterator[None]:
        """Runs the model with one row of weights (batch, K) per sequence of the batch."""
        for columns in self._columns:
            columns.rows = weights[:, columns.expert] * columns.scale
        try:
            yield
        finally:
            for columns in self._columns:
                columns.rows = None


def install(model: nn.Module, experts: Sequence[Expert]) -> Mixture:
    """Replaces the experts' target modules in place. Raises ExpertError for a misfit.

    The order of ``experts`` is the order of the weights in a row.
    """
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    shapes = {name: (linear.out_features, linear.in_features) for name, linear in linears.items()}
    for expert in experts:
        check_shapes(expert, shapes)
    layouts: dict[tuple[int, ...], _Columns] = {}
    for name in sorted({module for expert in experts for module in expert.modules}):
        places = tuple(k for k, expert in enumerate(experts) if name in expert.modules)
        if places not in layouts:
            layouts[places] = _layout(experts, places, linears[name].weight)
        factors = [experts[k].modules[name] for k in places]
        _replace(model, name, MixtureLinear(linears[name], factors, layouts[places]))
    return Mixture(tuple(layouts.values()), len(experts))


def merged_delta(experts: Sequence[Expert], weights: Sequence[float]) -> Mapping[str, Tensor]:
    """Σ_k w_k s_k B_k A_k by module path, (d_out, d_in) float32: the mixture, written out."""
    deltas: dict[str, Tensor] = {}
    for expert, weight in zip(experts, weights, strict=True):
        for name, pair in expert.modules.items():
            delta = torch.from_numpy(pair.b) @ torch.from_numpy(pair.a)
            deltas[name] = deltas.get(name, torch.zeros(())) + weight * expert.scale * delta
    return deltas


def _layout(experts: Sequence[Expert], places: tuple[int, ...], like: Tensor) -> _Columns:
    ranks = torch.tensor([experts[k].rank for k in places])
    expert = torch.tensor(places).repeat_interleave(ranks)
    scale = torch.tensor([experts[k].scale for k in places]).repeat_interleave(ranks)
    return _Columns(expert.to(like.device), scale.to(like.device))


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
