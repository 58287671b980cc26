"""Any Hugging Face decoder as a model of verdicts: packed rows in, Yes − No margins out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankloom_engine import attention
from rankloom_engine.attention import PrefixKV
from rankloom_engine.buckets import buckets
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.layers import first_layer_alone
from rankloom_engine.packing import (
    PackedBatch,
    PackedRow,
    Segment,
    pack,
    pack_behind,
    pack_more,
)
from rankloom_engine.passes import Passes, passes_on

if TYPE_CHECKING:
    from rankloom_engine.expert_bank import ExpertBank
    from rankloom_engine.projector import Projector


@dataclass(frozen=True, slots=True, eq=False)
class ForwardInput:
    """One row of a scoring pass: candidates behind a prefix, and the weights of the experts.

    ``prefix``: tokens, or what an earlier pass kept of them. ``keep_prefix``: return the
    prefix's keys and values for later passes. ``visible``: (candidates,) prefix tokens that
    each sees; None: all.
    """

    prefix: Segment | PrefixKV
    candidates: Sequence[Segment]
    weights: MixtureWeights
    keep_prefix: bool = False
    visible: Sequence[int] | None = None

    def row(self) -> PackedRow:
        """The tokens that the model must read."""
        if isinstance(self.prefix, Segment):
            return pack(self.prefix, self.candidates, self.visible)
        length = len(self.prefix)
        visible = self.visible or [length] * len(self.candidates)
        return pack_behind(visible, self.candidates, cached=length)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardOutput:
    """(candidates,) float32 margins, Yes − No; and the prefix if it was to be kept."""

    margins: NDArray[np.float32]
    prefix: PrefixKV | None

    def is_finite(self) -> bool:
        """Whether no margin is NaN or infinity."""
        return bool(np.isfinite(self.margins).all())


@dataclass(frozen=True, slots=True, eq=False)
class DecodeInput:
    """One row of a decoding pass: tokens to read behind a cached text, if there is one."""

    cached: PrefixKV | None
    tokens: Segment
    weights: MixtureWeights


@dataclass(frozen=True, slots=True, eq=False)
class DecodeOutput:
    """(vocabulary,) float32 logits of the next token; and keys and values of the whole text."""

    logits: NDArray[np.float32]
    cached: PrefixKV

    def is_finite(self) -> bool:
        """Whether no logit is NaN or infinity."""
        return bool(np.isfinite(self.logits).all())


class Decoder:
    """A causal language model, its soft-token projector and its two verdict tokens.

    The model is wired for packed attention. ``digest``: of the bytes of model and projector.
    ``kernels_by_size``: the first pass of each size is slow, because its kernels are made
    then. ``passes``: how passes run. Not thread-safe: one thread runs it.
    """

    def __init__(
        self, model: nn.Module, projector: Projector, *, yes: int, no: int, digest: bytes = b""
    ) -> None:
        attention.wire(model)
        self.model = model
        self.projector = projector
        self.digest = digest
        self.bank: ExpertBank | None = None
        self.kernels_by_size = False
        self.passes: Passes = passes_on(self.device)
        self.yes, self.no = yes, no

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return cast("torch.device", cast("Any", self.model).get_input_embeddings().weight.device)

    @torch.inference_mode()
    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        """Margins of many requests, each with its own mixture, in one pass."""
        rows = [one.row() for one in inputs]
        cached = [one.prefix if isinstance(one.prefix, PrefixKV) else None for one in inputs]
        keep = [one.keep_prefix and not own for one, own in zip(inputs, cached, strict=True)]
        states, prefixes = self._run(rows, [one.weights for one in inputs], cached, keep)
        margins = self.margins_of(states).cpu().numpy()
        # The last part is the padding's.
        parts = np.split(margins, np.cumsum([len(row.read_at) for row in rows]))[:-1]
        return [
            ForwardOutput(own, prefix if one.keep_prefix else None)
            for own, prefix, one in zip(parts, prefixes, inputs, strict=True)
        ]

    @torch.inference_mode()
    def decode(self, inputs: Sequence[DecodeInput]) -> list[DecodeOutput]:
        """Logits of the next token of many texts, each with its own mixture, in one pass."""
        rows = [pack_more(len(one.cached) if one.cached else 0, one.tokens) for one in inputs]
        cached, keep = [one.cached for one in inputs], [True] * len(inputs)
        states, texts = self._run(rows, [one.weights for one in inputs], cached, keep)
        logits = head_logits(self.model, states[: len(inputs)]).float().cpu().numpy()
        return [
            DecodeOutput(own, text)
            for own, text in zip(logits, cast("list[PrefixKV]", texts), strict=True)
        ]

    def _run(
        self,
        rows: Sequence[PackedRow],
        weights: Sequence[MixtureWeights],
        cached: Sequence[PrefixKV | None],
        keep: Sequence[bool],
    ) -> tuple[Tensor, list[PrefixKV | None]]:
        """(reads, hidden) last states, those of the padding last, and the rows' prefixes."""
        batch = self.passes.batch(rows, weights, cached, keep)
        embeddings = self._embeddings(batch.packed)
        return self.passes.run(self.model, self.bank, embeddings, batch)

    def warm_up(self, max_tokens: int) -> None:
        """Runs all passes that are slow the first time, of at most ``max_tokens`` tokens."""
        for step in self.warm_up_steps(max_tokens):
            step()

    def warm_up_steps(self, max_tokens: int) -> Iterator[Callable[[], object]]:
        """``warm_up`` pass by pass, so that others may use the thread in between."""
        used = np.array(self.bank.ranks if self.bank else (), dtype=np.float32) > 0.0
        weights = MixtureWeights((used / max(used.sum(), 1)).astype(np.float32))
        yield partial(self.decode, [DecodeInput(None, _filler(2), weights)])
        yield partial(self.forward, [ForwardInput(_filler(2), [_filler(1)], weights)])
        # All layers have the same sizes, so the first one makes the kernels of all.
        for size in buckets(max_tokens + 1) if self.kernels_by_size else ():
            yield partial(self._run_first_layer, size, weights)
        # A recorded pass always has room for the same number of experts: one warms it up.
        alone = MixtureWeights((used & (np.cumsum(used) == 1)).astype(np.float32))
        for num_tokens, num_reads in self.passes.sizes(max_tokens):
            yield partial(self._run_of_size, num_tokens, num_reads, alone)

    def _run_first_layer(self, size: int, weights: MixtureWeights) -> None:
        """In short rows: some models have learned few positions."""
        lengths = [len(part) for part in np.array_split(range(size - 1), -(-size // _ROW_TOKENS))]
        inputs = [ForwardInput(_filler(length - 1), [_filler(1)], weights) for length in lengths]
        with first_layer_alone(self.model):
            self.forward(inputs)

    def _run_of_size(self, num_tokens: int, num_reads: int, weights: MixtureWeights) -> None:
        """Behind a new prefix, and behind the one that this pass keeps.

        A little more than half of the size is filled: less would be run in a smaller one.
        """
        length, rest = divmod(num_tokens // 2 + 1, num_reads)
        candidates = [_filler(length)] * (num_reads - 1) + [_filler(length + rest)]
        [first] = self.forward([ForwardInput(_filler(1), candidates, weights, keep_prefix=True)])
        self.forward([ForwardInput(first.prefix or _filler(1), candidates, weights)])

    def states(self, batch: PackedBatch) -> Tensor:
        """(reads, hidden) last states where a batch is read, without a mixture.

        Training calls it: gradients are recorded.
        """
        return self.passes.states(self.model, self._embeddings(batch), batch)

    def margins(self, batch: PackedBatch) -> Tensor:
        """(reads,) margins, in the order of rows and candidates; see ``states``."""
        return self.margins_of(self.states(batch))

    def margins_of(self, states: Tensor) -> Tensor:
        """(reads,) margins, Yes − No, of (reads, hidden) states."""
        logits = head_logits(self.model, states, [self.yes, self.no])
        return logits[:, 0] - logits[:, 1]

    def _embeddings(self, batch: PackedBatch) -> Tensor:
        """(1, tokens, hidden): rows of the table, and projected vectors for soft tokens."""
        table = cast("Any", self.model).get_input_embeddings()
        embedded: Tensor = table(torch.from_numpy(batch.ids).to(table.weight.device))
        embedded = _fill(embedded, batch.latent_at, batch.latent, self.projector.of_latent)
        embedded = _fill(embedded, batch.tabular_at, batch.tabular, self.projector.of_tabular)
        return embedded[None]


_ROW_TOKENS = 256


def _filler(length: int) -> Segment:
    return Segment.of_ids([0] * length)


def head_logits(model: nn.Module, states: Tensor, tokens: Sequence[int] | None = None) -> Tensor:
    """(verdicts, tokens) logits: a few rows of the head, or the whole vocabulary.

    With the scale and the soft cap that some architectures put behind the head.
    """
    head = cast("Any", model).get_output_embeddings()
    rows = slice(None) if tokens is None else list(tokens)
    # A few rows are computed in float32: bf16 has steps of 1/8 at logits around 16.
    wide = torch.float32 if tokens is not None else head.weight.dtype
    logits: Tensor = states.to(wide) @ head.weight[rows].to(wide).T
    if getattr(head, "bias", None) is not None:
        logits = logits + head.bias[rows].to(wide)
    config = cast("Any", model).config
    scale = _head_scale(config)
    logits = logits if scale is None else logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _head_scale(config: Any) -> float | None:  # noqa: ANN401
    """What the logits are multiplied by; two settings have that name, and one two meanings."""
    times = getattr(config, "logit_scale", None)
    if isinstance(times, (int, float)):
        return float(times)
    scale = float(getattr(config, "logits_scaling", None) or 1.0)
    if scale == 1.0:
        return None
    return scale if config.model_type == "hyperclovax" else 1.0 / scale


def _fill(embedded: Tensor, at: Any, vectors: Any, project: Any) -> Tensor:  # noqa: ANN401
    """Writes projected vectors to the indices ``at`` of (tokens, hidden)."""
    if not len(at):
        return embedded
    projected = project(torch.from_numpy(vectors).to(embedded.device)).to(embedded.dtype)
    return embedded.index_put((torch.from_numpy(at).to(embedded.device),), projected)
