"""Which tensors of an adapter's weight file are the factors A and B of which module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rankloom_adapters.header import TensorHeader
from rankloom_adapters.lora_config import LoraError

PREFIX = "base_model.model."
_FACTOR = re.compile(
    r"(?P<prefix>base_model\.model\.)?(?P<module>[A-Za-z0-9_.-]+)"
    r"\.lora_(?P<side>[AB])(?:\.(?P<adapter>[A-Za-z0-9_-]+))?\.weight"
)
_PATH, _MAX_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"), 256
_HEAD = r"(?:^|\.)(?:lm_head|embed_out)\."
_EMBEDDINGS = r"(?:^|\.)(?:embed_tokens|embed_in|wte|word_embeddings|lm_head|embed_out)\."
# What other tensors mean, by a part of their name, and what to do; first the most telling ones.
_OTHERS: tuple[tuple[str, str], ...] = (
    (rf"{_HEAD}lora_[AB]\.", "LoRA on the head; train without it in target_modules"),
    (r"\.lora_magnitude_vector", "DoRA; train with use_dora=False"),
    (r"\.lora_[AB](\.[^.]+)?\.bias$", "biases of LoRA; train with lora_bias=False"),
    (r"\.trainable_tokens_", "new tokens; train without trainable_token_indices"),
    (r"\.modules_to_save\.", "a whole module; train with modules_to_save=None"),
    (r"\.lora_embedding_[AB]", "LoRA on the embeddings; train without them in target_modules"),
    (
        _EMBEDDINGS,
        "the embeddings are in the file: a token was added, or they were trained; "
        "train without, and save with save_embedding_layers=False",
    ),
    (r"\.bias$", "a bias of the base; train with bias='none'"),
)


@dataclass(frozen=True, slots=True)
class LoraTensors:
    """``modules``: the headers of A and B by module path, sorted.

    ``adapter_name``: the one in the keys, "" if there is none. ``has_prefix``: whether the keys
    begin with PEFT's.
    """

    modules: Mapping[str, tuple[TensorHeader, TensorHeader]]
    adapter_name: str
    has_prefix: bool


def lora_tensors(tensors: Mapping[str, TensorHeader]) -> LoraTensors:
    """Sorts a file's tensors by module. Raises LoraError for a tensor that is no factor."""
    _check_names(tensors)
    forms: set[tuple[str, bool]] = set()
    sides: dict[str, dict[str, TensorHeader]] = {}
    for key, header in tensors.items():
        found = _factor(key)
        forms.add((found["adapter"] or "", found["prefix"] is not None))
        sides.setdefault(found["module"], {})[found["side"]] = header
    if len(forms) > 1:
        raise LoraError(
            "unexpected tensor names of several forms: save one adapter, with save_pretrained"
        )
    modules = {module: _pair(module, sides[module]) for module in sorted(sides)}
    ((adapter_name, has_prefix),) = forms
    return LoraTensors(modules, adapter_name, has_prefix)


def _check_names(keys: Iterable[str]) -> None:
    """Refuses what other kinds of adapters hold, and names it."""
    for part, meaning in _OTHERS:
        if (key := next((each for each in keys if re.search(part, each)), None)) is not None:
            raise LoraError(f"unexpected tensor {key[:80]!r}: {meaning}")


def _factor(key: str) -> re.Match[str]:
    """The parts of a factor's name. The path appears in logs, so it must be plain text."""
    found = _FACTOR.fullmatch(key)
    if not found or len(found["module"]) > _MAX_PATH or not _PATH.fullmatch(found["module"]):
        raise LoraError(
            f"unexpected tensor {key[:80]!r}: not a factor of LoRA; "
            "save the adapter with save_pretrained"
        )
    return found


def _pair(module: str, sides: Mapping[str, TensorHeader]) -> tuple[TensorHeader, TensorHeader]:
    if sides.keys() != {"A", "B"} or any(len(side.shape) != 2 for side in sides.values()):
        raise LoraError(f"{module}: needs one lora_A and one lora_B matrix; save the adapter again")
    return sides["A"], sides["B"]
