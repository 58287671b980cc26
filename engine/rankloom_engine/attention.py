"""Attention over packed rows laid end to end, for any decoder of transformers.

transformers lets any registered function be a model's attention, so no model is
rewritten: this function knows the rows of the running pass. A row sees only itself, a
candidate its prefix and itself, and the keys and values of a prefix may come from an
earlier pass. The last layer computes only the states that are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from rankloom_engine.layers import decoder_layers
from rankloom_engine.packing import PREFIX, Ints, PackedBatch, PackedRow

NAME = "rankloom"
GROUP_TOKENS = 256  # of candidates that attend in one call: scores between them are thrown away
_NONE: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class PrefixKV:
    """Keys and values of a prefix, computed by one pass and used by later ones.

    ``keys``, ``values``: one (1, key-value heads, tokens, head size) a layer.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def __len__(self) -> int:
        return int(self.keys[0].shape[2])

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """How a layer attends: factor of the scores, window in tokens, and soft cap of the scores."""

    scale: float | None
    window: int | None
    softcap: float | None


class KeysTaken(Exception):
    """Ends the first run of the last layer, of which only keys and values are needed."""


class _RowPass:
    """One row of a pass: its masks, and the keys and values of its prefix."""

    def __init__(self, row: PackedRow, cached: PrefixKV | None, *, keep: bool) -> None:
        self.num_prefix = row.num_prefix
        self._row, self._cached = row, cached
        self._groups = _groups(row)
        self._masks: dict[tuple[int | None, int], Tensor] = {}
        self._kept: dict[int, tuple[Tensor, Tensor]] | None = {} if keep else None

    def keys(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens that the row may see, the prefix first.

        ``key``, ``value``: of the tokens in the row.
        """
        if self._cached is not None:
            key = torch.cat([self._cached.keys[layer], key], dim=2)
            value = torch.cat([self._cached.values[layer], value], dim=2)
        if self._kept is not None:
            prefix = slice(0, self._row.cached + self.num_prefix)
            self._kept[layer] = key[:, :, prefix].clone(), value[:, :, prefix].clone()
        return key, value

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule
    ) -> list[Tensor]:
        """Attends for the whole row: the prefix, then the candidates."""
        found = []
        before = self._row.cached + self.num_prefix
        if self.num_prefix:
            seen = slice(0, before)
            mask = self._prefix_mask(rule.window, query)
            own = query[:, :, : self.num_prefix]
            found.append(attend(own, key[:, :, seen], value[:, :, seen], mask, rule))
        for group in self._groups:
            mask = self._candidate_mask(group, rule.window, query)
            keys, values = (self._seen_by(group, each) for each in (key, value))
            found.append(attend(query[:, :, group], keys, values, mask, rule))
        return found

    def _seen_by(self, group: slice, of_row: Tensor) -> Tensor:
        """What candidates of the group may see: the prefix and each other."""
        if len(self._groups) == 1:
            return of_row
        cached = self._row.cached
        own = of_row[:, :, cached + group.start : cached + group.stop]
        return torch.cat([of_row[:, :, : cached + self.num_prefix], own], dim=2)

    def attend_reads(
        self, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule
    ) -> Tensor:
        """Attends for the last token of each candidate; ``query`` has only those."""
        behind = np.arange(self.num_prefix, len(self._row))
        mask = self._additive(self._allowed(self._row.read_at, rule.window, behind), query)
        return attend(query, key, value, mask, rule)

    def cached(self) -> PrefixKV | None:
        """The prefix's keys and values if they were kept or given, else None."""
        if self._kept is None:
            return self._cached
        layers = [self._kept[layer] for layer in sorted(self._kept)]
        return PrefixKV(tuple(k for k, _ in layers), tuple(v for _, v in layers))

    def _prefix_mask(self, window: int | None, like: Tensor) -> Tensor | None:
        """None for plain causal attention, which needs no mask."""
        if not self._row.cached and (window is None or window >= self.num_prefix):
            return None
        name = (window, 0)
        if name not in self._masks:
            own = self._allowed(np.arange(self.num_prefix), window, _NONE)
            self._masks[name] = self._additive(own, like)
        return self._masks[name]

    def _candidate_mask(self, group: slice, window: int | None, like: Tensor) -> Tensor:
        """(1, 1, the group's tokens, those of the prefix and of the group).

        A candidate sees its prefix and itself.
        """
        name = (window, group.stop)
        if name not in self._masks:
            own = np.arange(group.start, group.stop)
            self._masks[name] = self._additive(self._allowed(own, window, own), like)
        return self._masks[name]

    def _allowed(self, at: Ints, window: int | None, behind: Ints) -> Tensor:
        """(at, prefix and ``behind``) bool: what the row's tokens at these indices may see.

        ``behind``: the row's indices of candidates' tokens.
        """
        row = self._row
        before = np.arange(row.cached + self.num_prefix)
        position = row.position[at, None]
        seen = before[None, :] < row.visible[at, None]
        own = row.block[at, None] == row.block[None, behind]
        own &= at[:, None] >= behind[None, :]
        if window is not None:
            seen &= position - before[None, :] < window
            own &= position - row.position[None, behind] < window
        return torch.from_numpy(np.concatenate([seen, own], axis=1))

    def _additive(self, allowed: Tensor, like: Tensor) -> Tensor:
        mask = torch.zeros(allowed.shape, dtype=like.dtype)
        mask.masked_fill_(~allowed, torch.finfo(like.dtype).min)
        return mask[None, None].to(like.device)


def _groups(row: PackedRow) -> list[slice]:
    """The row's candidates in runs of about GROUP_TOKENS: they do not see each other anyway."""
    starts = row.num_prefix + np.flatnonzero(np.diff(row.block[row.num_prefix :], prepend=PREFIX))
    bounds: list[int] = []
    for start in [*starts.tolist(), len(row)]:
        if not bounds or start - bounds[-1] >= GROUP_TOKENS or start == len(row):
            bounds.append(start)
    return [slice(*bound) for bound in pairwise(bounds)]


class RunningPass(ABC):
    """The pass that runs on this thread, as the attention of the layers sees it."""

    def __init__(self) -> None:
        self._taking = False
        self._last: Any = None  # the last layer's keys and values, once they are taken

    @abstractmethod
    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule
    ) -> Tensor:
        """(1, heads, tokens, size) of each → (1, tokens, heads, size), contiguous.

        Raises KeysTaken inside ``take_last_keys``.
        """

    @property
    @abstractmethod
    def read_at(self) -> Tensor:
        """(reads,) indices of the tokens that leave the last layer."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Makes this the running pass of this thread."""
        token = _running.set(self)
        try:
            yield
        finally:
            _running.reset(token)

    @contextmanager
    def repeating(self) -> Iterator[None]:
        """Makes this the running pass while a layer before the last one is run once more."""
        ended, self._last, self._taking = (self._last, self._taking), None, False
        try:
            with self.running():
                yield
        finally:
            self._last, self._taking = ended

    def take_last_keys(self, layer: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Runs the last layer up to its keys and values, which are needed of all tokens."""
        self._taking = True
        try:
            layer(hidden, *args, **kwargs)
        except KeysTaken:
            return


class Pass(RunningPass):
    """A pass whose rows attend one after the other, each in no more space than it needs.

    ``cached``: each row's prefix from an earlier pass, or None. ``keep``: whether to keep
    the row's own prefix for later passes.
    """

    _last: list[tuple[Tensor, Tensor]] | None

    def __init__(
        self,
        batch: PackedBatch,
        cached: Sequence[PrefixKV | None] | None = None,
        keep: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        num = len(batch.rows)
        given = zip(batch.rows, cached or [None] * num, keep or [False] * num, strict=True)
        self._rows = [_RowPass(row, own, keep=kept) for row, own, kept in given]
        self._lengths = [len(row) for row in batch.rows]
        self._batch = batch

    def cached(self, row: int) -> PrefixKV | None:
        """A row's prefix if it was kept or given, else None."""
        return self._rows[row].cached()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, rule: AttentionRule
    ) -> Tensor:
        """(1, heads, tokens, size) of each → (1, tokens, heads, size)."""
        if self._last is not None:
            return self._attend_reads(query, rule)
        # One split, not a slice per row: in training, the gradient of each slice would fill a
        # whole batch with zeros.
        queries, keys, values = (t.split(self._lengths, dim=2) for t in (query, key, value))
        seen = [row.keys(layer, *own) for row, *own in zip(self._rows, keys, values, strict=True)]
        if self._taking:
            self._last = seen
            raise KeysTaken
        parts = [
            part
            for row, own, (key, value) in zip(self._rows, queries, seen, strict=True)
            for part in row.attend(own, key, value, rule)
        ]
        return torch.cat(parts, dim=2).transpose(1, 2).contiguous()

    def _attend_reads(self, query: Tensor, rule: AttentionRule) -> Tensor:
        queries = query.split(self._batch.num_reads, dim=2)
        parts = [
            row.attend_reads(own, *seen, rule)
            for row, own, seen in zip(self._rows, queries, self._last or (), strict=True)
        ]
        return torch.cat(parts, dim=2).transpose(1, 2).contiguous()

    @property
    def read_at(self) -> Tensor:
        """(reads,) indices of the tokens that leave the last layer."""
        return torch.from_numpy(self._batch.read_at)


_running: ContextVar[RunningPass | None] = ContextVar("rankloom_pass", default=None)


def running_pass() -> RunningPass | None:
    """The one that runs on this thread."""
    return _running.get()


class _LastLayer(nn.Module):
    """Mixed into a decoder's last layer: only the states that are read leave it."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        whole, running = cast("Any", super()).forward, _running.get()
        if running is None:
            return whole(hidden_states, *args, **kwargs)
        running.take_last_keys(whole, hidden_states, *args, **kwargs)
        at, length = running.read_at.to(hidden_states.device), hidden_states.shape[1]
        args = tuple(_picked(value, at, length) for value in args)
        kwargs = {name: _picked(value, at, length) for name, value in kwargs.items()}
        return whole(hidden_states[:, at], *args, **kwargs)


def wire(model: nn.Module) -> None:
    """Gives a decoder this attention and a last layer for read positions only, in place.

    Raises ValueError or AttributeError if the model's attention cannot be replaced.
    """
    any_model = cast("Any", model)
    any_model.set_attn_implementation(NAME)
    layer = decoder_layers(model)[-1]
    if not isinstance(layer, _LastLayer):
        # A subclass keeps the layer's names and weights, and it can still be copied.
        layer.__class__ = type(type(layer).__name__, (_LastLayer, type(layer)), {})


def _picked(value: Any, at: Tensor, length: int) -> Any:  # noqa: ANN401
    """The read positions' part of an argument that has a value per token."""
    if isinstance(value, tuple):
        return tuple(_picked(part, at, length) for part in value)
    if not isinstance(value, Tensor) or value.ndim < 2:
        return value
    if value.shape[1] == length:
        return value[:, at]
    # What is of each query, not of each token's vector, has the heads before the tokens.
    return value[:, :, at] if value.ndim == 4 and value.shape[2] == length else value


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    running = _running.get()
    if running is None:
        raise RuntimeError("packed attention: no pass is running; call the model inside one")
    layer = cast("int", module.layer_idx)
    if "sliding_window" in others:
        window = others["sliding_window"]
    else:  # some layers know their window, and leave it to the mask
        window = getattr(module, "sliding_window", None)
    rule = AttentionRule(scaling, window, softcap)
    return running.attend(layer, query, key, value, rule), None


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rule: AttentionRule
) -> Tensor:
    """Scaled dot-product attention; no mask means causal."""
    grouped = query.shape[1] != key.shape[1]
    if rule.softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=rule.scale, enable_gqa=grouped
        )
    repeats = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
    scale = query.shape[-1] ** -0.5 if rule.scale is None else rule.scale
    scores = torch.tanh(query @ key.transpose(2, 3) * scale / rule.softcap) * rule.softcap
    if mask is None:
        mask = torch.full(scores.shape[2:], torch.finfo(scores.dtype).min).triu(1).to(scores)
    return (scores + mask).softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value


AttentionInterface.register(NAME, _attention)
