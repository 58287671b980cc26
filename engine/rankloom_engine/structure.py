"""What a decoder is made of, seen without its numbers: whether it has what packed rows need."""

from __future__ import annotations

import copy
import functools
import inspect
import os
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.initialization import no_init_weights

from rankloom_engine.decoder_files import building
from rankloom_engine.expert_bank import linears_of
from rankloom_engine.layers import body_of, decoder_layers

OTHER_MODEL = "use another base model"
_OTHER_PARTS = {"audio_config", "vision_config"}
# In the names of parts that carry a state from token to token, and of all that mix tokens.
_STATES = ("Mixer", "Mamba", "ShortConv", "Recurrent", "Delta", "LSTM", "Rwkv")
_MIXERS = (*_STATES, "ttention", "Block")


class UnfitError(Exception):
    """Why a decoder cannot be served, and what to do."""

    def __init__(self, cause: str, remedy: str = OTHER_MODEL) -> None:
        super().__init__(f"{cause}; {remedy}")


def text_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the language model inside a model of text and images, or the config itself."""
    text = _text_config(config)
    return text if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING else config


def check_structure(config: PreTrainedConfig) -> None:
    """Softmax attention that can be replaced in each layer, positions, linear layers, one head.

    Raises UnfitError with the first of them that is missing.
    """
    _check_config(config)
    model = _skeleton(config)
    _check_layers(model)
    body, head = body_of(model), cast("Any", model).get_output_embeddings()
    takes = inspect.signature(body.forward).parameters
    if "position_ids" not in takes:
        raise UnfitError("it takes no positions, and each packed row begins at the first")
    if "inputs_embeds" not in takes:
        raise UnfitError("it takes token ids only, and soft tokens are vectors")
    if body is model or not isinstance(head, nn.Linear):
        raise UnfitError("it is not one body with one linear head for tokens")
    if not linears_of(model):
        names = {type(module).__name__ for module in decoder_layers(model).modules()}
        others = ", ".join(sorted(name for name in names if "Conv1D" in name))
        raise UnfitError(f"it has no linear layers for experts ({others or 'none at all'})")


def short(error: Exception) -> str:
    """An error's class and the beginning of its message, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def _check_config(config: PreTrainedConfig) -> None:
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise UnfitError(
            f"its weights are quantised ({method or type(quantised).__name__})",
            "use the model that it was made from",
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnfitError(f"no causal language model of transformers {transformers.__version__}")
    text = _text_config(config)
    if type(text) is not type(config) and type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnfitError(f"its part for text ({text.model_type}) is no causal language model alone")
    others = sorted(_OTHER_PARTS & set(config.sub_configs))
    if others:
        raise UnfitError(f"its parts for images and sound ({', '.join(others)}) cannot be left out")


def _text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    try:
        return cast("PreTrainedConfig", config.get_text_config(decoder=True))
    except ValueError:  # it has several
        return config


def _skeleton(config: PreTrainedConfig) -> nn.Module:
    """The whole model on the device without memory."""
    try:
        with building, no_init_weights(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation="eager"
            )
    except Exception as error:  # each architecture raises its own classes
        raise UnfitError(f"transformers cannot make it ({short(error)})") from error
    return cast("nn.Module", model)


def _check_layers(model: nn.Module) -> None:
    try:
        layers = decoder_layers(model)
    except (AttributeError, ValueError) as error:
        raise UnfitError("it has no list with one layer for each attention") from error
    others = [layer for layer in layers if _carries_a_state(layer) or not _attends(layer)]
    if others:
        names = ", ".join(sorted({_mixer(layer) for layer in others}))
        raise UnfitError(
            "packed rows need softmax attention by transformers' attention interface in each "
            f"layer, and {len(others)} of {len(layers)} have another kind ({names})"
        )


def _carries_a_state(layer: nn.Module) -> bool:
    return any(kind in own for kind in _STATES for _, own in _classes(layer))


def _attends(layer: nn.Module) -> bool:
    kinds: set[Any] = {type(module) for module in layer.modules()}
    return any(map(_uses_the_interface, kinds))


@functools.cache
def _uses_the_interface(kind: Any) -> bool:  # noqa: ANN401
    """Whether a module calls the function that is registered as attention.

    Its code says so. Running it would not do: a layer may have several ways.
    """
    try:
        return "ALL_ATTENTION_FUNCTIONS" in inspect.getsource(kind.forward)
    except (OSError, TypeError):
        return False


def _mixer(layer: nn.Module) -> str:
    """Class of the part of a layer that mixes tokens."""
    classes = _classes(layer)
    found = (name for kind in _MIXERS for name, own in classes if kind in own)
    return next(found, type(layer).__name__)


def _classes(layer: nn.Module) -> list[tuple[str, str]]:
    """Names of the architecture's classes inside a layer, whole and without its own name."""
    kinds = [type(module) for module in layer.modules()]
    names = [each.__name__ for each in kinds if each.__module__.startswith("transformers.models")]
    prefix = len(os.path.commonprefix(names))  # noqa: RUF071 - of names, not of paths
    return [(name, name[prefix:]) for name in names[1:]]
