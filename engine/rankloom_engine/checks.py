"""Whether packed scoring equals plain scoring for an architecture, tried on a small model of it.

Without this check, a wrong mask would make scores silently wrong. It takes about a second, and
needs the config alone, so that a model is refused before anything is trained or served with it.
"""

from __future__ import annotations

import copy
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig

from rankloom_engine import attention
from rankloom_engine.attention import AttentionRule, Pass
from rankloom_engine.errors import ModelError
from rankloom_engine.layers import body_of
from rankloom_engine.model import head_logits
from rankloom_engine.packed_trial import (
    PackedTrial,
    embedded,
    random_expert,
    rows_up_to,
    share_of,
)
from rankloom_engine.packing import Segment, collate, pack
from rankloom_engine.passes import last_states
from rankloom_engine.small import SEED, small_config, small_model
from rankloom_engine.structure import OTHER_MODEL, UnfitError, check_structure, short

# Packed and plain scoring may differ by float rounding only: of the largest logit.
TOLERANCE = 1e-3
# A bundle sets the length of its prompts, and the cost of attention grows with its square. What
# depends on distance beyond this (positions, windows) is checked apart.
MAX_TOKENS = 2048


_sound = set[tuple[str, str, int, int]]()


def check_once(config: PreTrainedConfig, num_tokens: int, num_positions: int) -> None:
    """``check_architecture``, unless this process has found the same sound before."""
    key = (type(config).__name__, config.to_json_string(), num_tokens, num_positions)
    if key not in _sound:
        check_architecture(config, num_tokens, num_positions)
        _sound.add(key)


@torch.inference_mode()
def check_architecture(config: PreTrainedConfig, num_tokens: int, num_positions: int) -> None:
    """Raises ModelError, with the cause, if a decoder of this config could not be served.

    ``num_tokens``: of the longest prompt. ``num_positions``: with what is decoded behind it.
    """
    try:
        check_structure(config)
        model = _built(config, num_tokens)
        seen = _watched(model)
        _check_vectors(model)
        packed = copy.deepcopy(model)
        attention.wire(packed)
        _check_positions(packed, num_positions)
        _check_rows_apart(packed, num_positions)
        _check_scores(config, model, num_tokens, seen)
        _check_experts_and_vectors(model)
    except UnfitError as error:
        raise ModelError(f"base: {config.model_type}: {error}") from error.__cause__


def _built(config: PreTrainedConfig, num_tokens: int) -> nn.Module:
    try:
        return small_model(config, num_tokens)
    except Exception as error:  # each architecture raises its own classes
        raise UnfitError(f"no small model of it can be made ({short(error)})") from error


@dataclass(slots=True)
class _Seen:
    """What the layers asked attention for: which of them did, and with more than they should."""

    layers: set[int] = field(default_factory=set)
    sinks: bool = False
    masks: bool = False


_WATCHED = "rankloom-watched"
_seen: ContextVar[_Seen] = ContextVar("rankloom_seen")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    seen = _seen.get()
    seen.layers.add(getattr(module, "layer_idx", -1))
    seen.sinks |= others.get("s_aux") is not None
    seen.masks |= attention_mask is not None
    found = attention.attend(query, key, value, None, AttentionRule(scaling, None, None))
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(_WATCHED, _attention)


def _watched(model: nn.Module) -> _Seen:
    """Runs a copy of the model on a few tokens and sees what reaches its attention."""
    twin = cast("Any", copy.deepcopy(model))
    token, own_masks = _seen.set(_Seen()), False
    try:
        twin(torch.arange(8, 16)[None])
        own_masks = True
        twin.set_attn_implementation(_WATCHED)
        twin(torch.arange(8, 16)[None])
    except Exception as error:  # each architecture raises its own classes
        if own_masks:
            raise UnfitError("its layers choose the tokens to attend to by masks") from error
        raise UnfitError(f"it cannot be run on text alone ({short(error)})") from error
    finally:
        seen = _seen.get()
        _seen.reset(token)
    return seen


def _check_vectors(model: nn.Module) -> None:
    """A vector can stand in a token's place, and a token's own vector is like the token."""
    ids = torch.arange(8, 16)[None]
    any_model = cast("Any", model)
    vectors = any_model.get_input_embeddings()(ids)
    other = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(SEED))
    try:
        any_model(inputs_embeds=other)
        same = share_of(any_model(inputs_embeds=vectors).logits, any_model(ids).logits) <= TOLERANCE
        cause: Exception | None = None
    except Exception as error:
        same, cause = False, error
    if not same:
        raise UnfitError(
            "it reads token ids beside their vectors (as per-layer embeddings do), so that no "
            "soft token can stand in their place"
        ) from cause


def _check_positions(packed: nn.Module, num: int) -> None:
    """The model has learned ``num`` positions, or computes them.

    A longer prompt would fail one request on a CPU, and on a GPU all requests after it.
    """
    batch = collate([pack(Segment.of_ids([8, 9, 8]), [Segment.of_ids([9])])])
    vectors = embedded(packed, batch.ids, None)
    for last, cause, remedy in (
        (3, "it cannot leave out tokens in its last layer", OTHER_MODEL),
        (
            num - 1,
            f"it has learned too few positions: a prompt and its explanation may take {num}",
            "let the prompt have fewer events",
        ),
    ):
        try:
            with Pass(batch).running():
                last_states(packed, vectors, torch.tensor([0, 1, 2, last]))
        except Exception as error:  # each architecture raises its own classes
            detail = f" ({short(error)})" if last == 3 else ""
            raise UnfitError(cause + detail, remedy) from error


def _check_rows_apart(packed: nn.Module, num_positions: int) -> None:
    """A row is the same beside one that reaches the last position, be it short or half as long."""
    batch = collate([pack(Segment.of_ids([8, 9, 10]), [Segment.of_ids([11, 12])])] * 2)

    def states(own: list[int], other: list[int]) -> Tensor:
        with Pass(batch).running():
            vectors = embedded(packed, batch.ids, None)
            return last_states(packed, vectors, torch.tensor(own + other))[0]

    last = list(range(num_positions - 5, num_positions))
    for at in (3, num_positions // 2):
        own = [0, 1, 2, at, at + 1]
        if share_of(states(own, last), states(own, own)) > TOLERANCE:
            raise UnfitError(
                "its positions depend on the longest row of a pass (rotary scaling as in longrope "
                f"or dynamic NTK), and a prompt with its explanation may take {num_positions}",
                "let the prompt have fewer events, or use another base model",
            )


def _check_scores(config: PreTrainedConfig, model: nn.Module, num_tokens: int, seen: _Seen) -> None:
    """Packed scores are plain scores, up to the longest prompt."""
    trial = PackedTrial(model)
    found = trial.difference(rows_up_to(trial.vocabulary, min(num_tokens, MAX_TOKENS)))
    if found <= TOLERANCE:
        return
    cause = f"its packed scores differ from the plain ones by {found:.2g} of the largest, because "
    if seen.sinks:
        raise UnfitError(cause + "its attention has sinks")
    if not _begins_at_0(model):
        raise UnfitError(cause + "its positions do not begin at 0")
    if not _is_causal(model):
        raise UnfitError(cause + "its tokens see later ones, as in an encoder")
    if not _has_a_plain_head(model):
        raise UnfitError(cause + "its head is more than a linear layer with a scale and a cap")
    if small_config(config, num_tokens).to_dict() != small_config(config, 0).to_dict():
        longer = PackedTrial(_built(config, 0))
        if longer.difference(rows_up_to(longer.vocabulary, 3)) <= TOLERANCE:
            raise UnfitError(
                cause + f"something changes within {num_tokens} tokens (a window, chunks, a scale) "
                "that packed rows are not told of",
                "let the prompt have fewer events, or use another base model",
            )
    if seen.masks:
        raise UnfitError(cause + "it makes masks of its own")
    raise UnfitError(cause + "its attention depends on more than masks and positions")


def _check_experts_and_vectors(model: nn.Module) -> None:
    """The same with an expert on all linear layers, and with vectors in place of tokens."""
    vector = torch.randn(
        cast("Any", model).get_input_embeddings().embedding_dim,
        generator=torch.Generator().manual_seed(SEED),
    )
    try:
        trial = PackedTrial(model, vector, random_expert(model))
        found = trial.difference(rows_up_to(trial.vocabulary, 3))
    except Exception as error:  # each architecture raises its own classes
        raise UnfitError(f"its linear layers cannot have experts ({short(error)})") from error
    if found > TOLERANCE:
        raise UnfitError("experts on its linear layers act otherwise than merged into the weights")


def _is_causal(model: nn.Module) -> bool:
    ids = torch.arange(8, 20)[None]
    any_model = cast("Any", model)
    return share_of(any_model(ids).logits[:, :8], any_model(ids[:, :8]).logits) <= TOLERANCE


def _begins_at_0(model: nn.Module) -> bool:
    ids = torch.arange(8, 16)[None]
    any_model = cast("Any", model)
    placed = any_model(ids, position_ids=torch.arange(8)[None]).logits
    return share_of(placed, any_model(ids).logits) <= TOLERANCE


def _has_a_plain_head(model: nn.Module) -> bool:
    ids = torch.arange(8, 16)[None]
    states = body_of(model)(ids).last_hidden_state
    found = head_logits(model, states[0], [0, 1])
    return share_of(found, cast("Any", model)(ids).logits[0, :, :2]) <= TOLERANCE
