"""The mixture layer: every row of a batch goes through its own weighted sum of experts.

y = x W + ((x A) ⊙ (w_row · s)) B, where A and B are the experts' factors side by side:
exactly Σ_k w_k s_k B_k A_k per row, for any ranks and any number of different rows, in
two small matrix products. If that were wider than a quarter of the model, each row goes
through only the experts that it gives weight to, in products of its own; the sum is the
same.

Experts are in the slots of one slab. A revision maps its experts to slots, so rows of
several revisions share a batch, and loading an expert writes one slot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankloom_adapters.expert import Expert, ExpertError, check_shapes
from rankloom_adapters.router import Fusion

# Stacked experts cost K·r (1/d_in + 1/d_out) of a layer: beyond this share of the hidden
# size, rows that use few of many experts are cheaper one by one.
STACKED_SHARE = 4
MAX_STACKS = 64  # runs of slots whose views a layer keeps: sparse mixtures may use any run


def max_stacked(hidden: int, rank: int) -> int:
    """How many experts of that rank are stacked at most in a model of that hidden size."""
    return max(1, hidden // STACKED_SHARE // rank)


@dataclass(frozen=True, slots=True, eq=False)
class MixtureWeights:
    """One row's weights, (slots,) float32, and how they combine the experts."""

    values: NDArray[np.float32]
    fusion: Fusion = Fusion.EXACT_SUM


@dataclass(frozen=True, slots=True, eq=False)
class _Stacked:
    """All rows through a run of slots. ``tokens``: (tokens, columns) weights by their length."""

    slots: tuple[int, int]
    tokens: Mapping[int, Tensor]

    def add(self, layer: MixtureLinear, hidden: Tensor, out: Tensor) -> None:
        a, b = layer.stacked(*self.slots)
        out.addmm_(torch.mm(hidden, a).mul_(self.tokens[len(hidden)]), b)


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """All rows through a fixed number of slots, any ones, for passes that are recorded.

    ``slots``: (slots,) int64. ``tokens``: (tokens, columns) weights by their length.
    """

    slots: Tensor
    tokens: Mapping[int, Tensor]

    def add(self, layer: MixtureLinear, hidden: Tensor, out: Tensor) -> None:
        """Adds the experts' part to the output of the base layer."""
        a, b = layer.a[self.slots].flatten(0, 1).T, layer.b[self.slots].flatten(0, 1)
        out.addmm_(torch.mm(hidden, a).mul_(self.tokens[len(hidden)]), b)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Gathered:
        """A copy with ``change`` applied to each tensor."""
        tokens = {length: change(each) for length, each in self.tokens.items()}
        return Gathered(change(self.slots), tokens)


@dataclass(frozen=True, slots=True, eq=False)
class _RowByRow:
    """Each row through its own experts, whose factors are gathered for all rows at once.

    ``slots``: (n,) int64, row after row. ``of_a``, ``of_b``: (n, 1, 1) multipliers of the
    factors. ``shares``: each row's part of the n. ``fusion``: of each row. ``spans``: the
    rows' tokens, by their number in the pass.
    """

    slots: Tensor
    of_a: Tensor
    of_b: Tensor | None
    shares: Sequence[slice]
    fusion: Sequence[Fusion]
    spans: Mapping[int, Sequence[slice]]

    def add(self, layer: MixtureLinear, hidden: Tensor, out: Tensor) -> None:
        a = layer.a.index_select(0, self.slots).mul_(self.of_a)
        b = layer.b.index_select(0, self.slots)
        if self.of_b is not None:
            b.mul_(self.of_b)
        rows = zip(self.shares, self.fusion, self.spans[len(hidden)], strict=True)
        for share, fusion, span in rows:
            if share.start < share.stop:
                own_a, own_b = (_joined(each[share], fusion) for each in (a, b))
                out[span].addmm_(hidden[span] @ own_a.T, own_b)


def _joined(factors: Tensor, fusion: Fusion) -> Tensor:
    """(columns, width) of a row's factors (slots, rank, width)."""
    return factors.sum(0) if fusion is Fusion.PEFT_LINEAR else factors.flatten(0, 1)


class MixtureLinear(nn.Module):
    """A linear layer with slots of low-rank experts: ``a`` (slots, rank, d_in), ``b``."""

    a: Tensor
    b: Tensor

    def __init__(self, base: nn.Linear, bank: ExpertBank) -> None:
        super().__init__()
        self.base = base
        self._bank = [bank]  # in a list, so that torch does not make it a part of the model
        like, shape = base.weight, (bank.num_slots, bank.rank)
        for name, width in (("a", base.in_features), ("b", base.out_features)):
            self.register_buffer(name, like.new_zeros(*shape, width), persistent=False)
        self._stacks: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @property
    def weight(self) -> Tensor:
        """The base layer's, since some models ask for its type."""
        return self.base.weight

    def stacked(self, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Views (d_in, columns) and (columns, d_out) of a run of slots."""
        if (first, stop) not in self._stacks:
            if len(self._stacks) == MAX_STACKS:
                self._stacks.clear()
            a, b = self.a[first:stop].flatten(0, 1).T, self.b[first:stop].flatten(0, 1)
            self._stacks[first, stop] = a, b
        return self._stacks[first, stop]

    def load(self, slot: int, expert: Expert, name: str) -> None:
        """Writes an expert's factors of the module ``name`` into a slot, zeros if it has none."""
        self.a[slot], self.b[slot] = 0.0, 0.0
        if name in expert.modules:
            factors = expert.modules[name]
            rank = len(factors.a)  # modules of one expert may have several
            self.a[slot, :rank] = torch.from_numpy(factors.a)
            self.b[slot, :rank] = torch.from_numpy(factors.b.T)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, length, d_in) → (batch, length, d_out)."""
        out: Tensor = self.base(hidden)
        plan = self._bank[0].plan
        if plan is not None:
            plan.add(self, hidden.flatten(0, -2), out.view(-1, out.shape[-1]))
        return out


class ExpertBank:
    """The experts wired into a model. Only one thread may use the model at a time.

    ``digests``, ``ranks``: of the expert in each slot. ``keys``: digests of both its files, on
    which its part of the output depends, and its scale.
    """

    def __init__(self, num_slots: int, rank: int, hidden: int) -> None:
        self.num_slots, self.rank = num_slots, rank
        self.plan: _Stacked | Gathered | _RowByRow | None = None
        self.digests = [""] * num_slots
        self.keys = [""] * num_slots
        self.ranks = [0] * num_slots
        self._widest_stack = rank * max_stacked(hidden, rank)
        self._scale = np.zeros(num_slots, dtype=np.float32)
        self._layers: dict[str, MixtureLinear] = {}

    @property
    def num_bytes(self) -> int:
        slabs = [slab for layer in self._layers.values() for slab in (layer.a, layer.b)]
        return sum(slab.numel() * slab.element_size() for slab in slabs)

    def load(self, slot: int, expert: Expert) -> None:
        """Puts an expert into a slot that no running pass uses. Raises ExpertError."""
        self.check(expert)
        for name, layer in self._layers.items():
            layer.load(slot, expert, name)
        self._scale[slot] = expert.scale
        self.digests[slot], self.ranks[slot] = expert.digest, expert.rank
        self.keys[slot] = f"{expert.digest} {expert.config_digest} {expert.scale!r}"

    def check(self, expert: Expert) -> None:
        """Raises ExpertError if the expert does not fit into the slots."""
        linears = {name: layer.base for name, layer in self._layers.items()}
        check_shapes(expert, {n: (m.out_features, m.in_features) for n, m in linears.items()})
        if expert.rank > self.rank:
            raise ExpertError(
                expert.name, f"rank {expert.rank} does not fit into slots of rank {self.rank}"
            )

    def wire(self, model: nn.Module, names: Sequence[str]) -> None:
        """Replaces the named linear layers in place."""
        for name in names:
            parent, _, child = name.rpartition(".")
            layer = MixtureLinear(cast("nn.Linear", model.get_submodule(name)), self)
            setattr(model.get_submodule(parent), child, layer)
            self._layers[name] = layer

    @contextmanager
    def weighted(
        self, weights: Sequence[MixtureWeights], *lengths: Sequence[int]
    ) -> Iterator[None]:
        """Runs the model with one mixture per row of the batch.

        ``lengths``: tokens of each row in each of the two layouts of a pass: all tokens, and
        in the last layer the verdicts only.
        """
        with self.planned(self._plan(weights, lengths)):
            yield

    @contextmanager
    def planned(self, plan: _Stacked | Gathered | _RowByRow | None) -> Iterator[None]:
        """Runs the model by a plan; None: without experts."""
        self.plan = plan
        try:
            yield
        finally:
            self.plan = None

    def gathered(
        self, weights: Sequence[MixtureWeights], *lengths: Sequence[int]
    ) -> Gathered | None:
        """A plan whose tensors have sizes that depend on the lengths only.

        None if the rows use too many experts for it, or other fusions than the exact sum.
        """
        factors = np.stack([row.values for row in weights]) * self._scale
        used = np.flatnonzero(factors.any(axis=0))
        room = self._widest_stack // self.rank
        if len(used) > room or any(row.fusion is not Fusion.EXACT_SUM for row in weights):
            return None
        slots = np.concatenate([used, np.zeros(room - len(used), dtype=np.int64)])
        values = np.pad(factors[:, used], ((0, 0), (0, room - len(used))))
        columns = self._to_model(values.repeat(self.rank, axis=1))
        tokens = {sum(own): _by_token(columns, own) for own in lengths}
        return Gathered(torch.from_numpy(slots).to(columns.device), tokens)

    def _plan(
        self, weights: Sequence[MixtureWeights], lengths: Sequence[Sequence[int]]
    ) -> _Stacked | _RowByRow:
        factors = np.stack([row.values for row in weights]) * self._scale
        used = np.flatnonzero(factors.any(axis=0))
        first, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        exact = all(row.fusion is Fusion.EXACT_SUM for row in weights)
        if exact and (stop - first) * self.rank <= self._widest_stack:
            columns = self._to_model(factors[:, first:stop].repeat(self.rank, axis=1))
            tokens = {sum(own): _by_token(columns, own) for own in lengths}
            return _Stacked((first, stop), tokens)
        return self._row_by_row(factors, [row.fusion for row in weights], lengths)

    def _row_by_row(
        self,
        factors: NDArray[np.float32],
        fusion: Sequence[Fusion],
        lengths: Sequence[Sequence[int]],
    ) -> _RowByRow:
        rows, slots = np.nonzero(factors)
        values, linear = factors[rows, slots], np.array(fusion)[rows] == Fusion.PEFT_LINEAR
        of_a, of_b = (
            self._to_model(np.sqrt(values, where=linear, out=others))[:, None, None]
            for others in (values.copy(), np.ones_like(values))
        )
        return _RowByRow(
            torch.from_numpy(slots).to(of_a.device),
            of_a,
            of_b if linear.any() else None,
            _spans(np.count_nonzero(factors, axis=1).tolist()),
            fusion,
            {sum(own): _spans(own) for own in lengths},
        )

    def _to_model(self, values: NDArray[np.float32]) -> Tensor:
        like = next(iter(self._layers.values())).a
        return torch.from_numpy(values).to(like.device, like.dtype)


def install(
    model: nn.Module, experts: Sequence[Expert], num_slots: int | None = None
) -> ExpertBank:
    """Wires experts into a model, in place, one slot each. Raises ExpertError if one misfits.

    The slots are in the order of ``experts``. ``num_slots``: of all, with room for more.
    """
    linears = linears_of(model)
    shapes = {name: (linear.out_features, linear.in_features) for name, linear in linears.items()}
    for expert in experts:
        check_shapes(expert, shapes)
    names = sorted({module for expert in experts for module in expert.modules})
    rank = max(expert.rank for expert in experts)
    hidden = cast("Any", model).get_input_embeddings().embedding_dim
    bank = ExpertBank(num_slots or len(experts), rank, hidden)
    bank.wire(model, names)
    for slot, expert in enumerate(experts):
        bank.load(slot, expert)
    return bank


def linears_of(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that experts can be on, by path: those that do what a linear layer does.

    Not the head, of which two rows make the margin.
    """
    head = cast("Any", model).get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and type(module).forward is nn.Linear.forward
        and module is not head
    }


def merged_delta(experts: Sequence[Expert], weights: Sequence[float]) -> Mapping[str, Tensor]:
    """Σ_k w_k s_k B_k A_k by module path, (d_out, d_in) float32: the merged mixture."""
    deltas: dict[str, Tensor] = {}
    for expert, weight in zip(experts, weights, strict=True):
        for name, pair in expert.modules.items():
            delta = torch.from_numpy(pair.b) @ torch.from_numpy(pair.a)
            deltas[name] = deltas.get(name, torch.zeros(())) + weight * expert.scale * delta
    return deltas


def _by_token(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    return rows.repeat_interleave(torch.tensor(lengths, device=rows.device), dim=0)


def _spans(lengths: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *lengths]).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]
