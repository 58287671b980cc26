"""Attention over a whole pass at once, for GPUs, where a launch costs more than its work.

One mask tells the rows apart. It is made on the device from a few values per token, so a
layer attends in one launch instead of two per row. Passes of one size differ only in the
contents of tensors, so that a pass can be recorded and replayed (see ``graphs``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rankloom_engine.attention import AttentionRule, KeysTaken, PrefixKV, RunningPass, attend
from rankloom_engine.packing import PREFIX, PackedBatch

_NO_ROW = -1


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which row and position each token of a pass has, and the cached prefixes.

    ``row``, ``block``, ``visible``, ``position``: (tokens,); ``row`` is an index, the others
    are as in PackedRow. ``cached_row``, ``cached_position``: (cached,). ``read_at``:
    (reads,). ``keys``, ``values``: of each layer (1, key-value heads, cached, head size);
    empty if nothing is cached.
    """

    row: Tensor
    block: Tensor
    visible: Tensor
    position: Tensor
    cached_row: Tensor
    cached_position: Tensor
    read_at: Tensor
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Layout:
        """A copy with ``change`` applied to each tensor."""
        return Layout(
            row=change(self.row),
            block=change(self.block),
            visible=change(self.visible),
            position=change(self.position),
            cached_row=change(self.cached_row),
            cached_position=change(self.cached_position),
            read_at=change(self.read_at),
            keys=tuple(map(change, self.keys)),
            values=tuple(map(change, self.values)),
        )

    def allowed(self, window: int | None) -> Tensor:
        """(tokens, cached and tokens) bool: what each token may see."""
        num_cached = len(self.cached_row)
        order = torch.arange(len(self.row), device=self.row.device)
        of_prefix = functional.pad(self.block == PREFIX, (num_cached, 0), value=True)
        position = torch.cat([self.cached_position, self.position])
        in_prefix = (position < self.visible[:, None]) & of_prefix
        itself = (self.block[:, None] == self.block) & (order[:, None] >= order)
        in_candidate = functional.pad(itself, (num_cached, 0), value=False) & ~of_prefix
        same_row = self.row[:, None] == torch.cat([self.cached_row, self.row])
        allowed = same_row & (in_prefix | in_candidate)
        if window is None:
            return allowed
        return allowed & (self.position[:, None] - position < window)


def layout_of(
    batch: PackedBatch,
    cached: Sequence[PrefixKV | None],
    device: torch.device,
    num_cached: int | None = None,
) -> Layout:
    """The layout of a batch. ``num_cached``: room for cached tokens; None: as many as there are."""
    lengths, cached_lengths = [len(row) for row in batch.rows], [len(h) if h else 0 for h in cached]
    spare = 0 if num_cached is None else num_cached - sum(cached_lengths)
    rows = np.arange(len(batch.rows))
    cached_row = np.concatenate([np.repeat(rows, cached_lengths), np.full(spare, _NO_ROW)])
    cached_position = [np.arange(length) for length in (*cached_lengths, spare)]
    keys, values = _cached_tensors([prefix for prefix in cached if prefix], spare)

    def moved(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Layout(
        row=moved(np.repeat(rows, lengths)),
        block=moved(np.concatenate([row.block for row in batch.rows])),
        visible=moved(np.concatenate([row.visible for row in batch.rows])),
        position=moved(batch.position),
        cached_row=moved(cached_row),
        cached_position=moved(np.concatenate(cached_position)),
        read_at=moved(batch.read_at),
        keys=keys,
        values=values,
    )


def _cached_tensors(
    cached: Sequence[PrefixKV], spare: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Each layer's keys and values of all prefixes end to end, and zeros behind them."""
    if not cached:
        return (), ()
    sides = [[prefix.keys for prefix in cached], [prefix.values for prefix in cached]]
    keys, values = (
        tuple(
            functional.pad(torch.cat(layer, dim=2), (0, 0, 0, spare))
            for layer in zip(*side, strict=True)
        )
        for side in sides
    )
    return keys, values


class WholePass(RunningPass):
    """A pass whose rows all attend at once.

    ``seen``: keys and values by layer, unless the pass does not keep them.
    """

    _last: tuple[Tensor, Tensor] | None

    def __init__(self, layout: Layout, *, keep: bool = True) -> None:
        super().__init__()
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self._keep = keep
        self._layout = layout
        self._masks: dict[tuple[int | None, bool], Tensor] = {}

    @property
    def read_at(self) -> Tensor:
        """(reads,) on the layout's device."""
        return self._layout.read_at

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule
    ) -> Tensor:
        """(1, heads, tokens, size) of each → (1, tokens, heads, size)."""
        if self._last is None:
            if self._layout.keys:
                key = torch.cat([self._layout.keys[layer], key], dim=2)
                value = torch.cat([self._layout.values[layer], value], dim=2)
            if self._keep:
                self.seen[layer] = key, value
            if self._taking:
                self._last = key, value
                raise KeysTaken
        # CUDA's kernels take a mask or grouped heads, not both.
        repeats = query.shape[1] // key.shape[1]
        key, value = (
            each.repeat_interleave(repeats, dim=1) if repeats > 1 else each
            for each in self._last or (key, value)
        )
        found = attend(query, key, value, self._mask(rule.window, query), rule)
        return found.transpose(1, 2).contiguous()

    def _mask(self, window: int | None, like: Tensor) -> Tensor:
        """(1, 1, queries, cached and tokens), to be added to scores."""
        name = (window, self._last is None)
        if name not in self._masks:
            allowed = self._layout.allowed(window)
            if self._last is not None:
                allowed = allowed[self.read_at]
            mask = torch.zeros_like(allowed, dtype=like.dtype)
            mask.masked_fill_(~allowed, torch.finfo(like.dtype).min)
            self._masks[name] = mask[None, None]
        return self._masks[name]


def cached_after(
    batch: PackedBatch,
    cached: Sequence[PrefixKV | None],
    keep: Sequence[bool],
    seen: dict[int, tuple[Tensor, Tensor]],
) -> list[PrefixKV | None]:
    """Each row's prefix for later passes: its own if it is kept, else the given one."""
    num_cached = next(iter(seen.values()))[0].shape[2] - sum(len(row) for row in batch.rows)
    found: list[PrefixKV | None] = []
    at, cached_at = num_cached, 0
    for row, given, kept in zip(batch.rows, cached, keep, strict=True):
        spans = (slice(cached_at, cached_at + row.cached), slice(at, at + row.num_prefix))
        found.append(_cut(seen, spans) if kept else given)
        at, cached_at = at + len(row), cached_at + (len(given) if given else 0)
    return found


def _cut(seen: dict[int, tuple[Tensor, Tensor]], spans: Sequence[slice]) -> PrefixKV:
    """Copies of the spans, since the next recorded pass overwrites the tensors."""
    layers = [seen[layer] for layer in sorted(seen)]
    keys, values = (
        tuple(torch.cat([each[:, :, span] for span in spans], dim=2) for each in side)
        for side in zip(*layers, strict=True)
    )
    return PrefixKV(keys, values)
