"""How the passes of a model run: row by row, all rows at once, or replayed from recordings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rankloom_engine.attention import Pass, PrefixKV
from rankloom_engine.buckets import bucket
from rankloom_engine.expert_bank import ExpertBank, MixtureWeights
from rankloom_engine.graphs import (
    MAX_CACHED,
    MAX_TOKENS,
    MIN_CACHED,
    MIN_READS,
    MIN_TOKENS,
    PassInputs,
    Recorder,
    Recordings,
    coarse,
)
from rankloom_engine.layers import body_of
from rankloom_engine.packing import PackedBatch, PackedRow, collate, padding
from rankloom_engine.whole import WholePass, cached_after, layout_of

Cached = Sequence[PrefixKV | None]
Seen = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The rows of a pass, and a row of padding behind them.

    ``cached``: each row's prefix from an earlier pass. ``keep``: whether to keep the row's own
    prefix for later ones. ``weights``: of all rows but the padding.
    """

    packed: PackedBatch
    weights: Sequence[MixtureWeights]
    cached: Cached
    keep: Sequence[bool]


class Passes(ABC):
    """Runs the passes of one model."""

    def batch(
        self,
        rows: Sequence[PackedRow],
        weights: Sequence[MixtureWeights],
        cached: Cached,
        keep: Sequence[bool],
    ) -> Batch:
        """The rows, padded to a size of pass that is run."""
        packed = collate([*rows, self.padding(rows)])
        return Batch(packed, weights, [*cached, None], [*keep, False])

    @abstractmethod
    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        """(reads, hidden) last states, and each row's prefix if it was given or is kept.

        ``embeddings``: (1, tokens, hidden).
        """

    @abstractmethod
    def states(self, model: nn.Module, embeddings: Tensor, batch: PackedBatch) -> Tensor:
        """(reads, hidden) last states, without a mixture; gradients are recorded."""

    def padding(self, rows: Sequence[PackedRow]) -> PackedRow:
        """The row that fills a pass of these rows up to a size that is run."""
        num_reads = bucket(_num_reads(rows))
        return _padding(rows, num_reads, bucket(_min_tokens(rows, num_reads)))

    def sizes(self, max_tokens: int) -> Iterator[tuple[int, int]]:
        """Numbers of tokens and reads of the passes to warm up; none by default."""
        yield from ()


class RowByRow(Passes):
    """For CPUs: rows attend one after the other, and share all other work."""

    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        running = Pass(batch.packed, batch.cached, batch.keep)
        with _weighted(bank, batch), running.running():
            states = last_states(model, embeddings, torch.from_numpy(batch.packed.position))
        return states, [running.cached(row) for row in range(len(batch.weights))]

    def states(self, model: nn.Module, embeddings: Tensor, batch: PackedBatch) -> Tensor:
        """(reads, hidden) last states, without a mixture; gradients are recorded."""
        with Pass(batch).running():
            return last_states(model, embeddings, torch.from_numpy(batch.position))


class AllAtOnce(Passes):
    """For GPUs: one attention per layer."""

    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        layout = layout_of(batch.packed, batch.cached, embeddings.device)
        running = WholePass(layout)
        with _weighted(bank, batch), running.running():
            states = last_states(model, embeddings, layout.position)
        return states, _prefixes(batch, running.seen)

    def states(self, model: nn.Module, embeddings: Tensor, batch: PackedBatch) -> Tensor:
        """(reads, hidden) last states, without a mixture; gradients are recorded."""
        layout = layout_of(batch, [None] * len(batch.rows), embeddings.device)
        with WholePass(layout, keep=False).running():
            return last_states(model, embeddings, layout.position)


class Recorded(AllAtOnce):
    """For GPUs: small passes are replayed from a recording of their size.

    Of one model, on one thread.
    """

    def __init__(self, model: nn.Module, bank: ExpertBank | None, record: Recorder[Any]) -> None:
        def run(inputs: PassInputs) -> tuple[Tensor, Seen]:
            running = WholePass(inputs.layout)
            with _planned(bank, inputs), running.running():
                states = last_states(model, inputs.embeddings, inputs.layout.position)
            return states, running.seen

        self.recordings: Recordings[tuple[Tensor, Seen]] = Recordings(run, record)

    def padding(self, rows: Sequence[PackedRow]) -> PackedRow:
        """Fills a pass that is recorded up to one of few sizes."""
        num_reads = coarse(_num_reads(rows), MIN_READS)
        num_tokens = coarse(_min_tokens(rows, num_reads), MIN_TOKENS)
        if num_tokens > MAX_TOKENS:
            return super().padding(rows)
        return _padding(rows, num_reads, num_tokens)

    def sizes(self, max_tokens: int) -> Iterator[tuple[int, int]]:
        """All sizes that are recorded, with at least four tokens per candidate."""
        num_tokens = MIN_TOKENS
        while num_tokens <= min(coarse(max_tokens, MIN_TOKENS), MAX_TOKENS):
            num_reads = MIN_READS
            while num_reads <= num_tokens // 4:
                yield num_tokens, num_reads
                num_reads *= 2
            num_tokens *= 2

    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        inputs = _recordable(bank, embeddings, batch)
        if inputs is None:
            return super().run(model, bank, embeddings, batch)
        states, seen = self.recordings.run(inputs)
        return states, _prefixes(batch, seen)


def passes_on(device: torch.device) -> Passes:
    """How passes run there."""
    return RowByRow() if device.type == "cpu" else AllAtOnce()


def last_states(model: nn.Module, embeddings: Tensor, position: Tensor) -> Tensor:
    """(reads, hidden) last states, inside a running pass. ``position``: (tokens,)."""
    position = position[None].to(embeddings.device)
    output = body_of(model)(inputs_embeds=embeddings, position_ids=position, use_cache=False)
    return cast("Tensor", output.last_hidden_state[0])


def _recordable(bank: ExpertBank | None, embeddings: Tensor, batch: Batch) -> PassInputs | None:
    """The pass as inputs of a recording; None if it is too large or its mixtures do not fit."""
    num_cached = sum(len(prefix) for prefix in batch.cached if prefix)
    room = coarse(num_cached, MIN_CACHED) if num_cached else 0
    if embeddings.shape[1] > MAX_TOKENS or room > MAX_CACHED:
        return None
    plan = None
    if bank is not None:
        plan = bank.gathered(_with_padding(bank, batch), *_lengths(batch))
        if plan is None:
            return None
    layout = layout_of(batch.packed, batch.cached, embeddings.device, room)
    return PassInputs(embeddings, layout, plan)


def _prefixes(batch: Batch, seen: Seen) -> list[PrefixKV | None]:
    return cached_after(batch.packed, batch.cached, batch.keep, seen)[: len(batch.weights)]


def _num_reads(rows: Sequence[PackedRow]) -> int:
    return sum(len(row.read_at) for row in rows)


def _min_tokens(rows: Sequence[PackedRow], num_reads: int) -> int:
    # Padded reads need one padded token. And there must be more tokens than reads: a
    # layer tells the two layouts of the rows apart by their length.
    padded = int(num_reads > _num_reads(rows))
    return max(sum(map(len, rows)) + padded, num_reads + 1)


def _padding(rows: Sequence[PackedRow], num_reads: int, num_tokens: int) -> PackedRow:
    return padding(num_tokens - sum(map(len, rows)), num_reads - _num_reads(rows))


def _with_padding(bank: ExpertBank, batch: Batch) -> list[MixtureWeights]:
    """Weights of all rows; the padding goes through no expert."""
    return [*batch.weights, MixtureWeights(np.zeros(bank.num_slots, dtype=np.float32))]


def _lengths(batch: Batch) -> tuple[list[int], list[int]]:
    return [len(row) for row in batch.packed.rows], batch.packed.num_reads


@contextmanager
def _weighted(bank: ExpertBank | None, batch: Batch) -> Iterator[None]:
    if bank is None:
        yield
        return
    with bank.weighted(_with_padding(bank, batch), *_lengths(batch)):
        yield


@contextmanager
def _planned(bank: ExpertBank | None, inputs: PassInputs) -> Iterator[None]:
    if bank is None:
        yield
        return
    with bank.planned(inputs.plan):
        yield
