"""Any Hugging Face decoder as a model of verdicts: packed rows in, Yes − No margins out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from rankloom_engine import attention
from rankloom_engine.attention import Pass, PrefixKV
from rankloom_engine.buckets import buckets
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.packing import (
    PackedBatch,
    PackedRow,
    Segment,
    collate,
    pack,
    pack_behind,
    pack_more,
)
from rankloom_engine.passes import AllAtOnce, Passes, RowByRow, last_states

if TYPE_CHECKING:
    from rankloom_engine.expert_bank import ExpertBank
    from rankloom_engine.projector import Projector

# Packed and plain scoring may differ by float rounding only, whatever the architecture.
SELF_CHECK_TOLERANCE = 1e-3
SELF_CHECK_SEED = 20
# A bundle sets the length of its prompts, and the cost of attention grows with its square.
SELF_CHECK_TOKENS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class ForwardInput:
    """One row of a scoring pass: candidates behind a prefix, and the weights of the experts.

    ``prefix``: tokens, or what an earlier pass kept of them. ``keep_prefix``: return the
    prefix's keys and values for later passes.
    """

    prefix: Segment | PrefixKV
    candidates: Sequence[Segment]
    weights: MixtureWeights
    keep_prefix: bool = False

    def row(self) -> PackedRow:
        """The tokens that the model must read."""
        if isinstance(self.prefix, Segment):
            return pack(self.prefix, self.candidates)
        return pack_behind([len(self.prefix)] * len(self.candidates), self.candidates)


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
        on_cpu = cast("Any", model).get_input_embeddings().weight.device.type == "cpu"
        self.passes: Passes = RowByRow() if on_cpu else AllAtOnce()
        self.yes, self.no = yes, no

    @torch.inference_mode()
    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        """Margins of many requests, each with its own mixture, in one pass."""
        rows = [one.row() for one in inputs]
        cached = [one.prefix if isinstance(one.prefix, PrefixKV) else None for one in inputs]
        keep = [one.keep_prefix and not own for one, own in zip(inputs, cached, strict=True)]
        states, prefixes = self._run(rows, [one.weights for one in inputs], cached, keep)
        margins = self._margins_of(states).cpu().numpy()
        # The last part is the padding's.
        parts = np.split(margins, np.cumsum([len(row.verdict_at) for row in rows]))[:-1]
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
        """(verdicts, hidden) last states, those of the padding last, and the rows' prefixes."""
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
        for num_tokens, num_verdicts in self.passes.sizes(max_tokens):
            yield partial(self._run_of_size, num_tokens, num_verdicts, alone)

    def _run_first_layer(self, size: int, weights: MixtureWeights) -> None:
        """In short rows: some models have learned few positions."""
        lengths = [len(part) for part in np.array_split(range(size - 1), -(-size // _ROW_TOKENS))]
        inputs = [ForwardInput(_filler(length - 1), [_filler(1)], weights) for length in lengths]
        with attention.first_layer_alone(self.model):
            self.forward(inputs)

    def _run_of_size(self, num_tokens: int, num_verdicts: int, weights: MixtureWeights) -> None:
        """Behind a new prefix, and behind the one that this pass keeps.

        A little more than half of the size is filled: less would be run in a smaller one.
        """
        length, rest = divmod(num_tokens // 2 + 1, num_verdicts)
        candidates = [_filler(length)] * (num_verdicts - 1) + [_filler(length + rest)]
        [first] = self.forward([ForwardInput(_filler(1), candidates, weights, keep_prefix=True)])
        self.forward([ForwardInput(first.prefix or _filler(1), candidates, weights)])

    def margins(self, batch: PackedBatch) -> Tensor:
        """(verdicts,) margins, in the order of rows and candidates, without a mixture.

        Training calls it: gradients are recorded.
        """
        with Pass(batch).running():
            position = torch.from_numpy(batch.position)
            return self._margins_of(last_states(self.model, self._embeddings(batch), position))

    def _margins_of(self, states: Tensor) -> Tensor:
        """(verdicts,) margins, Yes − No."""
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
    """(verdicts, tokens) logits: a few rows of the head, or the whole vocabulary."""
    head = cast("Any", model).get_output_embeddings()
    rows = slice(None) if tokens is None else list(tokens)
    # A few rows are computed in float32: bf16 has steps of 1/8 at logits around 16.
    wide = torch.float32 if tokens is not None else head.weight.dtype
    logits: Tensor = states.to(wide) @ head.weight[rows].to(wide).T
    if getattr(head, "bias", None) is not None:
        logits = logits + head.bias[rows].to(wide)
    cap = getattr(cast("Any", model).config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def load_decoder_model(config: bytes, weights: bytes) -> nn.Module:
    """A causal LM from the bytes of its two files, in evaluation mode. Raises ModelError.

    Nothing is downloaded, and no code from the model's repository runs.
    """
    try:
        fields = json.loads(config)
        if fields.get("auto_map"):
            raise ModelError(
                "base: its config needs custom code (auto_map); use a model of transformers itself"
            )
        settings = AutoConfig.for_model(fields.pop("model_type"), **fields)
        model = AutoModelForCausalLM.from_config(settings, attn_implementation="eager")
        state = safetensors.torch.load(weights)
        missing, unexpected = model.load_state_dict(state, strict=False)
    except ModelError:
        raise
    except Exception as error:  # transformers raises many classes for a bad config
        raise ModelError("base: config and weights are not a causal language model") from error
    model.tie_weights()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise ModelError("base: the weights do not match the config")
    return cast("nn.Module", model.float().eval())


@torch.inference_mode()
def self_check(model: nn.Module, vocabulary: int, num_tokens: int) -> None:
    """Wires the model and compares packed with plain scoring. Raises ModelError.

    Random tokens, in rows of several lengths, behind new and behind cached prefixes. One prompt
    has ``num_tokens`` (at most SELF_CHECK_TOKENS), to find effects of distance such as a window.
    Without this check, a wrong mask would make scores silently wrong.
    """
    num_tokens = min(num_tokens, SELF_CHECK_TOKENS)
    name = type(model).__name__
    random = np.random.default_rng(SELF_CHECK_SEED)
    tokens = sorted({0, vocabulary - 1})
    rows = [
        (_drawn(random, vocabulary, 37), [_drawn(random, vocabulary, n) for n in (5, 9, 3)]),
        (_drawn(random, vocabulary, 11), [_drawn(random, vocabulary, n) for n in (4, 1)]),
        (_drawn(random, vocabulary, num_tokens - 2), [_drawn(random, vocabulary, 2)]),
    ]
    try:
        plain = [
            _plain_logits(model, [*prefix, *ids], tokens) for prefix, own in rows for ids in own
        ]
        attention.wire(model)
        ways = _packed_logits(model, rows, tokens)
    except Exception as error:  # each architecture raises its own classes
        raise ModelError(f"base: {name} cannot be scored in packed form") from error
    for packed in ways:
        difference = float((packed - torch.stack(plain)).abs().max())
        if not difference <= SELF_CHECK_TOLERANCE:
            raise ModelError(
                f"base: {name} scores differently in packed form (by {difference:.3g}), because "
                "its attention depends on more than masks and positions; use another base model"
            )


@torch.inference_mode()
def check_positions(model: nn.Module, num: int) -> None:
    """Wires a model on a CPU. Raises ModelError if it has learned fewer than ``num`` positions.

    A longer prompt would fail one request on a CPU, and on a GPU all requests after it. Models
    that compute their positions have no such limit.
    """
    attention.wire(model)
    batch = collate([pack(_filler(1), [_filler(1)])])
    try:
        with Pass(batch).running():
            last_states(model, _embedded(model, batch), torch.tensor([0, num - 1]))
    except IndexError as error:
        raise ModelError(
            f"base: {type(model).__name__} has learned too few positions: a prompt and its "
            f"explanation may take {num} tokens; let the prompt have fewer events"
        ) from error


def _drawn(random: np.random.Generator, vocabulary: int, num: int) -> list[int]:
    found: list[int] = random.integers(0, vocabulary, num).tolist()
    return found


def _plain_logits(model: nn.Module, ids: list[int], tokens: Sequence[int]) -> Tensor:
    """One full prompt through the model with transformers' own attention."""
    any_model = cast("Any", model)
    any_model.set_attn_implementation("eager")
    device = any_model.get_input_embeddings().weight.device
    logits: Tensor = any_model(torch.tensor([ids], device=device)).logits[0, -1, list(tokens)]
    return logits


def _packed_logits(
    model: nn.Module, rows: Sequence[tuple[list[int], list[list[int]]]], tokens: Sequence[int]
) -> list[Tensor]:
    """All rows in one pass, and again behind the prefixes of that pass, by each kind of Passes."""
    segments = [(Segment.of_ids(p), [Segment.of_ids(ids) for ids in own]) for p, own in rows]
    new = [pack(prefix, own) for prefix, own in segments]
    behind = [pack_behind([len(p)] * len(own), own) for p, own in segments]
    num = sum(len(own) for _, own in rows)
    none = [MixtureWeights(np.zeros(0, dtype=np.float32))] * len(rows)
    found = []
    for passes in (RowByRow(), AllAtOnce()):
        cached: list[PrefixKV | None] = [None] * len(rows)
        for packed in (new, behind):
            batch = passes.batch(packed, none, cached, [packed is new] * len(rows))
            states, cached = passes.run(model, None, _embedded(model, batch.packed), batch)
            found.append(head_logits(model, states[:num], tokens))
    return found


def _embedded(model: nn.Module, batch: PackedBatch) -> Tensor:
    table = cast("Any", model).get_input_embeddings()
    embedded: Tensor = table(torch.from_numpy(batch.ids).to(table.weight.device))
    return embedded[None]


def _fill(embedded: Tensor, at: Any, vectors: Any, project: Any) -> Tensor:  # noqa: ANN401
    """Writes projected vectors to the indices ``at`` of (tokens, hidden)."""
    if not len(at):
        return embedded
    projected = project(torch.from_numpy(vectors).to(embedded.device)).to(embedded.dtype)
    return embedded.index_put((torch.from_numpy(at).to(embedded.device),), projected)
