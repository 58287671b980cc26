"""Any causal LM as the base: checked, fetched, written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from rankloom_adapters import bundle as parts
from rankloom_engine.checks import check_once
from rankloom_engine.decoder_files import load_decoder_model, read_config
from rankloom_engine.errors import ModelError
from rankloom_engine.explain import max_explained_tokens
from rankloom_engine.prompt import PromptFormat, load_tokenizer
from rankloom_engine.structure import text_part
from rankloom_training.prompt_room import PromptRoom

NO_ROOM = PromptRoom()
# Neither the hub nor its cache has answered.
_UNREACHABLE = (LocalEntryNotFoundError, OfflineModeIsEnabled)


class BaseModelError(ValueError):
    """The base model cannot be used. The message names the model and the reason."""


def embeddings_of(model: nn.Module) -> nn.Embedding:
    return cast("nn.Embedding", cast("Any", model).get_input_embeddings())


def write_base(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Writes config.json, model.safetensors and tokenizer.json into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = cast("Any", model).config.to_dict()
    config.pop("auto_map", None)  # the model is of transformers itself: no code is needed
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    state = {n: t.contiguous() for n, t in model.state_dict().items() if n not in tied}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(state))
    (folder / "tokenizer.json").write_text(tokenizer.to_str())


def read_base(folder: Path) -> tuple[nn.Module, Tokenizer]:
    """The model and tokenizer that ``write_base`` wrote under ``folder``'s bundle, in float32."""
    config = read_config((folder / parts.BASE_CONFIG).read_bytes())
    model = load_decoder_model(config, _pieces(folder / parts.BASE_WEIGHTS))
    return model, load_tokenizer((folder / parts.BASE_TOKENIZER).read_bytes())


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


def check_base(name: str, max_events: int, room: PromptRoom = NO_ROOM) -> None:
    """Refuses a base that cannot be served, before anything is trained. Raises BaseModelError.

    ``name``: a local path or hub id. Its weights are looked for (and downloaded), not read.
    ``room``: what the prompt must hold.
    """
    config = _config_of(name)
    _check_weights(name)
    fmt = room.of(_worded_format(*_tokenizer_of(name), max_events))
    try:
        check_once(config, fmt.max_tokens, max_explained_tokens(fmt))
    except ModelError as error:
        raise BaseModelError(f"base model {name!r}: {str(error).removeprefix('base: ')}") from error


def fetch_base(name: str, max_events: int) -> tuple[nn.Module, Tokenizer, PromptFormat]:
    """Loads a causal LM by local path or hub id, its fast tokenizer, and a prompt format.

    Of a model of text and images, the part for text. The weights keep their number format. The
    prompt uses plain words, since such a tokenizer has no tokens for its structure. Raises
    BaseModelError.
    """
    tokenizer, stop = _tokenizer_of(name)
    transformers.utils.logging.disable_progress_bar()  # a training shows its own
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
    except Exception as error:  # transformers raises many kinds; all of them mean this
        raise BaseModelError(_not_found(name, error)) from error
    return _text_model(model).eval(), tokenizer, _worded_format(tokenizer, stop, max_events)


def _config_of(name: str) -> PreTrainedConfig:
    """The config of the base's part for text."""
    try:
        fields, _ = PreTrainedConfig.get_config_dict(name)
    except Exception as error:  # transformers raises many kinds; all of them mean this
        raise BaseModelError(_not_found(name, error)) from error
    kind = fields.get("model_type")
    if kind not in CONFIG_MAPPING:
        needs = "needs code of its own (auto_map)" if fields.get("auto_map") else "is not known"
        raise BaseModelError(
            f"base model {name!r}: its type {kind!r} {needs}; use a model of transformers "
            f"{transformers.__version__} itself"
        )
    try:
        return text_part(AutoConfig.from_pretrained(name, trust_remote_code=False))
    except Exception as error:  # each config checks its own fields
        reason = " ".join(str(error).split())[:200]
        raise BaseModelError(f"base model {name!r}: config.json: {reason}; mend it") from error


def _check_weights(name: str) -> None:
    try:
        found = any(
            cached_file(name, file, _raise_exceptions_for_missing_entries=False)
            for file in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
        )
    except Exception as error:  # transformers raises many kinds; all of them mean this
        raise BaseModelError(_not_found(name, error)) from error
    if not found:
        raise BaseModelError(_not_found(name))


def _tokenizer_of(name: str) -> tuple[Tokenizer, int | None]:
    """The fast tokenizer, and the token that ends a text if it has one."""
    try:
        fast = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return Tokenizer.from_str(fast.backend_tokenizer.to_str()), fast.eos_token_id
    except Exception as error:  # transformers raises many kinds; all of them mean this
        raise BaseModelError(_not_found(name, error)) from error


def _text_model(model: Any) -> nn.Module:  # noqa: ANN401
    """The language model inside a model of text and images, with the same weights."""
    text = text_part(model.config)
    if type(text) is type(model.config):
        return cast("nn.Module", model)
    with torch.device("meta"):
        own = AutoModelForCausalLM.from_config(text)
    setattr(own, own.base_model_prefix, model.get_decoder())
    own.set_output_embeddings(model.get_output_embeddings())
    own.config = text
    return cast("nn.Module", own)


def _not_found(name: str, error: Exception | None = None) -> str:
    """Why there is no such base: ``error`` is what the library said, if it said anything."""
    causes = list(_causes_of(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        reason = "the hub gives it only to those who have asked for it; log in with `hf auth login`"
    elif any(isinstance(cause, _UNREACHABLE) for cause in causes):
        reason = (
            "the hub cannot be reached, and its cache lacks the model; check the network, or pass "
            "the model's folder"
        )
    else:
        reason = (
            "no causal LM with safetensors weights and a fast tokenizer under that path or hub id; "
            "check the name, or leave it out to train a small one"
        )
    return f"base model {name!r}: {reason}"


def _causes_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _worded_format(tokenizer: Tokenizer, stop: int | None, max_events: int) -> PromptFormat:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    return PromptFormat(
        begin=ids("What the user thought of items so far."),
        item=ids("\nItem: "),
        ask=ids("\nLiked:"),
        liked=ids(" Yes")[-1],
        disliked=ids(" No")[-1],
        marks=tuple(
            ids(f"\nLiked: {opinion}, which speaks {side}.")
            for opinion in ("No", "Yes")
            for side in ("against", "for")
        ),
        stop=stop,
        max_item_tokens=32,
        max_events=max_events,
    )
