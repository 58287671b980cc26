"""What the ``adapter_config.json`` of a LoRA adapter says, with PEFT's own meaning.

A setting that changes the arithmetic beyond W + scale · B A is refused by name, with what to do.
So is a field that this code does not know, because it may change the model too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rankloom_adapters.header import HeaderError, json_object
from rankloom_adapters.lora_patterns import PatternMatcher, is_named

MAX_RANK = 256
MAX_ALPHA = float(np.finfo(np.float32).max)
MAX_CONFIG_BYTES = 64 << 10
ALL_LINEAR = "all-linear"


class LoraError(ValueError):
    """The adapter cannot be used; the message says why, and what to do."""


class _Feature(NamedTuple):
    """A field that changes the arithmetic: the values that mean "off", and what to do."""

    off: tuple[object, ...]
    remedy: str


_UNSUPPORTED: Mapping[str, _Feature] = {
    "bias": _Feature(("none",), "train with bias='none'"),
    "use_dora": _Feature((False,), "train with use_dora=False"),
    "lora_bias": _Feature((False,), "train with lora_bias=False"),
    "modules_to_save": _Feature(
        (None, []), "whole modules would replace the base's; train with modules_to_save=None"
    ),
    "layer_replication": _Feature(
        (None,), "save the replicated model as the base, and train on that one"
    ),
    "trainable_token_indices": _Feature(
        (None,), "tokens would replace the base's; train without trainable_token_indices"
    ),
    "target_parameters": _Feature((None, []), "name linear modules in target_modules instead"),
    "alora_invocation_tokens": _Feature((None,), "train plain LoRA, which works on all tokens"),
    "init_lora_weights": _Feature(
        (True, False, "gaussian", "eva", "orthogonal", "mica"),
        "it changes the base's weights too; convert to plain LoRA with "
        "save_pretrained(…, path_initial_model_for_weight_conversion=…)",
    ),
}
# The only values that an unknown field may have.
_UNKNOWN = _Feature(
    (None, False, "", [], {}), "this version does not know what it does; train without it"
)
_HARMLESS = frozenset(
    {
        # Read below.
        *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        # Origin and training.
        *("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type"),
        *("inference_mode", "lora_dropout"),
        # Of initialisations: init_lora_weights says whether one was used.
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
        # Without effect while use_qalora and megatron_config are off.
        *("qalora_group_size", "megatron_core"),
        # PEFT ignores it for linear modules, and an expert has no others.
        "fan_in_fan_out",
    }
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """A checked configuration: which modules an adapter changes, and how much."""

    rank: int
    alpha: float
    targets: str | frozenset[str]
    is_rank_stabilised: bool = False
    excluded: str | frozenset[str] = frozenset()
    layers: tuple[int, ...] | None = None
    layer_patterns: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    base_name: str = ""

    def chooses(self, module: str, matcher: PatternMatcher) -> bool:
        """Whether PEFT would put LoRA on this module of a model. Raises PatternError."""
        return not self._excludes(module, matcher) and self._targets(module, matcher)

    def rank_of(self, module: str, matcher: PatternMatcher) -> int:
        """The module's rank. Raises PatternError."""
        pattern = matcher.first_suffix(self.ranks, module)
        return self.rank if pattern is None else self.ranks[pattern]

    def alpha_of(self, module: str, matcher: PatternMatcher) -> float:
        """The module's alpha, which may be negative or zero. Raises PatternError."""
        pattern = matcher.first_suffix(self.alphas, module)
        return self.alpha if pattern is None else self.alphas[pattern]

    def scale_of(self, module: str, matcher: PatternMatcher) -> float:
        """The factor of B A: alpha / r, or alpha / √r with rsLoRA. Raises PatternError."""
        rank = self.rank_of(module, matcher)
        divisor = math.sqrt(rank) if self.is_rank_stabilised else rank
        return self.alpha_of(module, matcher) / divisor

    def _excludes(self, module: str, matcher: PatternMatcher) -> bool:
        if isinstance(self.excluded, str):
            return bool(self.excluded) and matcher.is_whole(self.excluded, module)
        return is_named(self.excluded, module)

    def _targets(self, module: str, matcher: PatternMatcher) -> bool:
        if isinstance(self.targets, str):
            return self.targets.lower() == ALL_LINEAR or matcher.is_whole(self.targets, module)
        if module in self.targets:  # by its full path: in any layer
            return True
        if not is_named(self.targets, module):
            return False
        return not self.layers or matcher.layer_of(module, self.layer_patterns) in self.layers


def read_config(data: bytes) -> AdapterConfig:
    """Parses and checks a configuration. Raises LoraError, which names the field."""
    fields = _fields(data)
    if fields.get("peft_type") != "LORA":
        raise LoraError("peft_type must be LORA: experts are LoRA adapters")
    for name, value in fields.items():
        if name not in _HARMLESS:
            _check_off(name, value)
    base = fields.get("base_model_name_or_path")
    config = AdapterConfig(
        rank=_rank("r", fields.get("r")),
        alpha=_alpha("lora_alpha", fields.get("lora_alpha")),
        targets=_targets(fields.get("target_modules")),
        is_rank_stabilised=_flag("use_rslora", fields.get("use_rslora", False)),
        excluded=_excluded(fields.get("exclude_modules")),
        layers=_layers(fields.get("layers_to_transform")),
        layer_patterns=_layer_patterns(fields.get("layers_pattern")),
        ranks={k: _rank("rank_pattern", v) for k, v in _by_pattern(fields, "rank_pattern")},
        alphas={k: _alpha("alpha_pattern", v) for k, v in _by_pattern(fields, "alpha_pattern")},
        base_name=base if isinstance(base, str) else "",
    )
    if isinstance(config.targets, str) and (config.layers is not None or config.layer_patterns):
        raise LoraError(
            "layers_to_transform and layers_pattern need target_modules as a list, as in PEFT; "
            "name the layers in the pattern"
        )
    return config


def _fields(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CONFIG_BYTES:
        raise LoraError(f"over {MAX_CONFIG_BYTES} bytes; shorten target_modules to a pattern")
    try:
        return json_object(data)
    except HeaderError as error:
        raise LoraError(str(error)) from error


def _check_off(name: str, value: object) -> None:
    """Compares types too: 0 == False, and a 0 in an unknown field may be the number of a layer."""
    off, remedy = _UNSUPPORTED.get(name, _UNKNOWN)
    if not any(type(value) is type(each) and value == each for each in off):
        raise LoraError(f"{name[:80]!r} is set, which is not supported: {remedy}")


def _rank(name: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise LoraError(f"{name} must be an integer from 1 to {MAX_RANK}")
    return value


def _alpha(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_ALPHA:
        raise LoraError(f"{name} must be a finite number")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise LoraError(f"{name} must be true or false")
    return value


def _targets(value: object) -> str | frozenset[str]:
    names = _names(value)
    if not names:
        raise LoraError("target_modules must be a list of names or a pattern")
    return names if isinstance(names, str) else frozenset(names)


def _excluded(value: object) -> str | frozenset[str]:
    names = () if value is None else _names(value)
    if names is None:
        raise LoraError("exclude_modules must be a list of names or a pattern")
    return names if isinstance(names, str) else frozenset(names)


def _layer_patterns(value: object) -> tuple[str, ...]:
    names = () if value is None else _names(value)
    if names is None:
        raise LoraError("layers_pattern must be a name or a list of names")
    if isinstance(names, str):
        return (names,) if names else ()
    return names


def _names(value: object) -> str | tuple[str, ...] | None:
    """A pattern, or a list of names that are not empty; None if it is neither."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    return None


def _layers(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    given = value if isinstance(value, list) else [value]
    layers = tuple(layer for layer in given if type(layer) is int)
    if len(layers) != len(given):
        raise LoraError("layers_to_transform must be a layer's number or a list of them")
    return layers


def _by_pattern(fields: Mapping[str, Any], name: str) -> list[tuple[str, object]]:
    value = fields.get(name)
    if value is not None and not isinstance(value, dict):
        raise LoraError(f"{name} must map patterns to numbers")
    return list((value or {}).items())
