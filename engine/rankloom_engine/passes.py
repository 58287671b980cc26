"""How a model's passes are run: row by row, all rows at once, or from recordings."""

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
    MIN_TOKENS,
    MIN_VERDICTS,
    PassInputs,
    Recorder,
    Recordings,
    coarse,
)
from rankloom_engine.packing import PackedBatch, PackedRow, collate, padding
from rankloom_engine.whole import WholePass, cached_after, layout_of

Cached = Sequence[PrefixKV | None]
Seen = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The rows of a pass, and one of padding behind them.

    ``cached``: each row's prefix from an earlier pass. ``keep``: whether the row's own prefix
    is to be cached for later ones. ``weights``: of all rows but the padding.
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
        """The rows in a pass of a size that is run."""
        packed = collate([*rows, self.padding(rows)])
        return Batch(packed, weights, [*cached, None], [*keep, False])

    @abstractmethod
    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        """(verdicts, hidden) last states, and each row's prefix that was given or is kept.

        ``embeddings``: (1, tokens, hidden).
        """

    def padding(self, rows: Sequence[PackedRow]) -> PackedRow:
        """What brings a pass of these rows to a size that is run."""
        verdicts = bucket(_num_verdicts(rows))
        return _padding(rows, verdicts, bucket(_least(rows, verdicts)))

    def sizes(self, max_tokens: int) -> Iterator[tuple[int, int]]:
        """Tokens and verdicts of the passes to run before requests come; none by default."""
        yield from ()


class RowByRow(Passes):
    """On CPUs: rows attend one after the other, and share the rest of the work."""

    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        """As of Passes."""
        running = Pass(batch.packed, batch.cached, batch.keep)
        with _weighted(bank, batch), running.running():
            states = last_states(model, embeddings, torch.from_numpy(batch.packed.position))
        return states, [running.cached(number) for number in range(len(batch.weights))]


class AllAtOnce(Passes):
    """On GPUs: one attention a layer."""

    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        """As of Passes."""
        layout = layout_of(batch.packed, batch.cached, embeddings.device)
        running = WholePass(layout)
        with _weighted(bank, batch), running.running():
            states = last_states(model, embeddings, layout.position)
        return states, _left(batch, running.seen)


class Recorded(AllAtOnce):
    """On GPUs: the same, from a recording of the pass's size where it is a small one.

    Passes of one model, on one thread.
    """

    def __init__(self, model: nn.Module, bank: ExpertBank | None, record: Recorder[Any]) -> None:
        def run(inputs: PassInputs) -> tuple[Tensor, Seen]:
            running = WholePass(inputs.layout)
            with _planned(bank, inputs), running.running():
                states = last_states(model, inputs.embeddings, inputs.layout.position)
            return states, running.seen

        self.recordings: Recordings[tuple[Tensor, Seen]] = Recordings(run, record)

    def padding(self, rows: Sequence[PackedRow]) -> PackedRow:
        """To fewer sizes than elsewhere, if the pass is one to be recorded."""
        verdicts = coarse(_num_verdicts(rows), MIN_VERDICTS)
        tokens = coarse(_least(rows, verdicts), MIN_TOKENS)
        return _padding(rows, verdicts, tokens) if tokens <= MAX_TOKENS else super().padding(rows)

    def sizes(self, max_tokens: int) -> Iterator[tuple[int, int]]:
        """Of all passes that are recorded, with at least four tokens a candidate."""
        tokens = MIN_TOKENS
        while tokens <= min(coarse(max_tokens, MIN_TOKENS), MAX_TOKENS):
            verdicts = MIN_VERDICTS
            while verdicts <= tokens // 4:
                yield tokens, verdicts
                verdicts *= 2
            tokens *= 2

    def run(
        self, model: nn.Module, bank: ExpertBank | None, embeddings: Tensor, batch: Batch
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        """As of Passes."""
        inputs = _recordable(bank, embeddings, batch)
        if inputs is None:
            return super().run(model, bank, embeddings, batch)
        states, seen = self.recordings.run(inputs)
        return states, _left(batch, seen)


def last_states(model: nn.Module, embeddings: Tensor, position: Tensor) -> Tensor:
    """(verdicts, hidden) last states of a running pass. ``position``: (tokens,)."""
    body = cast("Any", model).base_model
    position = position[None].to(embeddings.device)
    output = body(inputs_embeds=embeddings, position_ids=position, use_cache=False)
    return cast("Tensor", output.last_hidden_state[0])


def _recordable(bank: ExpertBank | None, embeddings: Tensor, batch: Batch) -> PassInputs | None:
    """What a recording needs to know of a pass; None where it is not one to be recorded."""
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


def _left(batch: Batch, seen: Seen) -> list[PrefixKV | None]:
    return cached_after(batch.packed, batch.cached, batch.keep, seen)[: len(batch.weights)]


def _num_verdicts(rows: Sequence[PackedRow]) -> int:
    return sum(len(row.verdict_at) for row in rows)


def _least(rows: Sequence[PackedRow], verdicts: int) -> int:
    # One token for padded verdicts to stand at, where there are any, and never as many tokens
    # as verdicts: a layer tells the two ways of laying out the rows apart by their length.
    padded = int(verdicts > _num_verdicts(rows))
    return max(sum(map(len, rows)) + padded, verdicts + 1)


def _padding(rows: Sequence[PackedRow], verdicts: int, tokens: int) -> PackedRow:
    return padding(tokens - sum(map(len, rows)), verdicts - _num_verdicts(rows))


def _with_padding(bank: ExpertBank, batch: Batch) -> list[MixtureWeights]:
    """Of all rows: padding goes through no expert."""
    return [*batch.weights, MixtureWeights(np.zeros(bank.num_slots, dtype=np.float32))]


def _lengths(batch: Batch) -> tuple[list[int], list[int]]:
    return [len(row) for row in batch.packed.rows], batch.packed.num_verdicts


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
