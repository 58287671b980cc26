"""A small model's margins on the way that a server goes, beside the library's own forward.

It shares no code with the check that the engine makes itself, except for the small models.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedConfig

from rankloom_adapters.expert import Expert, Factors
from rankloom_engine.checks import check_architecture
from rankloom_engine.decoder_files import load_decoder_model, read_config
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import MixtureWeights, install, merged_delta
from rankloom_engine.model import DecodeInput, Decoder, ForwardInput
from rankloom_engine.packing import Segment
from rankloom_engine.passes import AllAtOnce, RowByRow
from rankloom_engine.projector import Projector
from rankloom_engine.small import small_config, small_model

NUM_TOKENS, NUM_POSITIONS = 1000, 1256  # of the prompt that training makes, about
LATENT, COLUMNS = 8, 5
YES, NO = 3, 4
TOLERANCE = 1e-3  # of the largest margin; rounding in sharp attention takes up to 1e-4


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """``cause``: why the family is refused, else None. ``error``: of the largest margin."""

    family: str
    cause: str | None
    error: float = 0.0

    @property
    def is_wrong(self) -> bool:
        """Whether a family that is accepted scores otherwise than the library."""
        return self.cause is None and not self.error <= TOLERANCE


def examine(family: str, config: PreTrainedConfig, seed: int = 0) -> FamilyResult:
    """Checks a family as training does, and if it is accepted, compares its margins."""
    try:
        check_architecture(config, NUM_TOKENS, NUM_POSITIONS)
    except ModelError as error:
        return FamilyResult(family, str(error).partition(": ")[2].partition(": ")[2])
    return FamilyResult(family, None, largest_error(config, seed))


@torch.inference_mode()
def largest_error(config: PreTrainedConfig, seed: int) -> float:
    """Of margins and of decoded logits, in every way to run a pass, as a share of the largest."""
    plain = small_model(config, NUM_TOKENS)
    random = np.random.default_rng(seed)
    experts = [_expert(plain, name, rank, random) for name, rank in (("a", 3), ("b", 2))]
    decoder = _decoder(config, plain, experts)
    inputs = [_input(random, *lengths) for lengths in ((50, (3, 9)), (0, (7,)), (310, (2, 5, 1)))]
    expected = [_plain_margins(decoder, plain, experts, one) for one in inputs]
    errors = []
    for passes in (RowByRow(), AllAtOnce()):
        decoder.passes = passes
        first = decoder.forward(inputs)
        behind = [
            ForwardInput(cached.prefix or one.prefix, one.candidates, one.weights)
            for one, cached in zip(inputs, first, strict=True)
        ]
        errors += [
            _share(np.concatenate([output.margins for output in found]), np.concatenate(expected))
            for found in (first, decoder.forward([*behind]))
        ]
        errors.append(_decoding_error(decoder, plain, experts, inputs[0]))
    return max(errors)


def _decoder(config: PreTrainedConfig, plain: nn.Module, experts: Sequence[Expert]) -> Decoder:
    """The model from the bytes that a bundle would have."""
    fields = json.dumps(small_config(config, NUM_TOKENS).to_dict())
    tied = set(getattr(plain, "all_tied_weights_keys", None) or ())
    state = {n: t.contiguous() for n, t in plain.state_dict().items() if n not in tied}
    weights = safetensors.torch.save(state)
    model = load_decoder_model(read_config(fields.encode()), [weights])
    torch.manual_seed(0)
    width = cast("Any", model).get_input_embeddings().embedding_dim
    decoder = Decoder(model, Projector(LATENT, COLUMNS, width).eval(), yes=YES, no=NO)
    decoder.bank = install(model, experts)
    return decoder


def _expert(model: nn.Module, name: str, rank: int, random: np.random.Generator) -> Expert:
    """An expert on every linear layer but the head."""
    head = cast("Any", model).get_output_embeddings()
    modules = {}
    for path, linear in model.named_modules():
        if type(linear) is nn.Linear and linear is not head:
            a = random.normal(0.0, linear.in_features**-0.5, (rank, linear.in_features))
            b = random.normal(0.0, 0.5, (linear.out_features, rank))
            modules[path] = Factors(a.astype(np.float32), b.astype(np.float32))
    return Expert(name, f"{rank:064x}", rank, 0.7, modules)


def _input(random: np.random.Generator, prefix: int, candidates: Sequence[int]) -> ForwardInput:
    values = random.dirichlet(np.ones(2)).astype(np.float32)
    own = [_segment(random, length) for length in candidates]
    return ForwardInput(_segment(random, prefix), own, MixtureWeights(values), keep_prefix=True)


def _segment(random: np.random.Generator, length: int) -> Segment:
    """Tokens, and two soft ones among them."""
    return Segment.joined(
        [
            Segment.of_ids(random.integers(0, 64, length).tolist()),
            Segment.of_latent(random.normal(size=LATENT).astype(np.float32)),
            Segment.of_tabular(random.normal(size=COLUMNS).astype(np.float32)),
            Segment.of_ids([1]),
        ]
    )


def _plain_margins(
    decoder: Decoder, plain: nn.Module, experts: Sequence[Expert], one: ForwardInput
) -> NDArray[np.float32]:
    prefix = cast("Segment", one.prefix)
    merged = _merged(plain, experts, one.weights)
    found = []
    for candidate in one.candidates:
        prompt = Segment.joined([prefix, candidate])
        logits = merged(inputs_embeds=_vectors(decoder, plain, prompt)).logits[0, -1]
        found.append(float(logits[YES] - logits[NO]))
    return np.array(found, dtype=np.float32)


def _decoding_error(
    decoder: Decoder, plain: nn.Module, experts: Sequence[Expert], one: ForwardInput
) -> float:
    """Of the logits of the whole vocabulary, one token behind a cached text."""
    text, word = cast("Segment", one.prefix), Segment.of_ids([7])
    cached = decoder.decode([DecodeInput(None, text, one.weights)])[0].cached
    found = decoder.decode([DecodeInput(cached, word, one.weights)])[0].logits
    whole = _vectors(decoder, plain, Segment.joined([text, word]))
    expected = _merged(plain, experts, one.weights)(inputs_embeds=whole).logits[0, -1].numpy()
    return _share(found[: len(expected)], expected)


def _merged(plain: nn.Module, experts: Sequence[Expert], weights: MixtureWeights) -> Any:  # noqa: ANN401
    """The model with a mixture in its weights."""
    model = copy.deepcopy(plain)
    for path, delta in merged_delta(experts, weights.values.tolist()).items():
        cast("nn.Linear", model.get_submodule(path)).weight += delta
    return model


def _vectors(decoder: Decoder, plain: nn.Module, prompt: Segment) -> Tensor:
    """(1, tokens, hidden)."""
    embedded: Tensor = cast("Any", plain).get_input_embeddings()(torch.from_numpy(prompt.ids))
    embedded = embedded.clone()
    latent, tabular = (
        torch.from_numpy(np.stack(vectors)) for vectors in (prompt.latent, prompt.tabular)
    )
    embedded[torch.from_numpy(prompt.latent_at)] = decoder.projector.of_latent(latent)
    embedded[torch.from_numpy(prompt.tabular_at)] = decoder.projector.of_tabular(tabular)
    return embedded[None]


def _share(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())
