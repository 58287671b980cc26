"""An expert: a LoRA adapter in PEFT's file format, validated before it is used.

An expert's folder holds ``adapter_config.json`` and ``adapter_model.safetensors``.
Whatever changes the arithmetic beyond W + (alpha / r) B A is refused by name, and so
is every field that this code does not know: an unknown field may mean another model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from rankloom_adapters.header import HeaderError, TensorHeader, read_header

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_RANK = 64
MAX_ALPHA = float(np.finfo(np.float32).max)
MAX_CONFIG_BYTES = 64 << 10
_PREFIX = "base_model.model."
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    # Fields that change the arithmetic, with the values that mean "off".
    "bias": ("none",),
    "use_dora": (False,),
    "use_rslora": (False,),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None,),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "fan_in_fan_out": (False,),
    # The other ways to start also change the base model's own weights.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", "mica"),
}
# What a field that this code does not know may hold.
_OFF: tuple[object, ...] = (None, False, "", [], {})
_HARMLESS = frozenset(
    {
        # Read below, one by one.
        *("peft_type", "r", "lora_alpha", "target_modules"),
        # Where the adapter came from, and how it was trained.
        *("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type"),
        *("inference_mode", "lora_dropout"),
        # Defaults that say nothing while use_qalora and megatron_config are off.
        *("qalora_group_size", "megatron_core"),
    }
)


class ExpertError(ValueError):
    """The expert cannot be used. ``expert`` names it, the message says why."""

    def __init__(self, expert: str, reason: str) -> None:
        super().__init__(f"expert {expert}: {reason}")
        self.expert = expert
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """One module's low-rank delta: ``a`` (r, d_in) and ``b`` (d_out, r), float32."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Expert:
    """A validated adapter: ΔW = ``scale`` · b a in each of its modules.

    ``digest``: SHA-256 of the weight file's bytes. ``modules``: by module path.
    """

    name: str
    digest: str
    rank: int
    scale: float
    modules: Mapping[str, Factors]


def parse_expert(name: str, config: bytes, weights: bytes) -> Expert:
    """Validates one adapter from the bytes of its two files. Raises ExpertError."""
    rank, scale, targets = _read_config(name, config)
    try:
        headers = read_header(weights)
    except HeaderError as error:
        raise ExpertError(name, f"{WEIGHTS_FILE}: {error}") from error
    modules = _modules_of(name, headers, rank, targets)
    tensors = _tensors(name, weights)
    factors = {module: _factors(tensors, module) for module in modules}
    for module, pair in factors.items():
        if not (np.isfinite(pair.a).all() and np.isfinite(pair.b).all()):
            raise ExpertError(name, f"{module}: a weight is NaN or infinite")
    return Expert(name, hashlib.sha256(weights).hexdigest(), rank, scale, factors)


def check_shapes(expert: Expert, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuses an expert that does not fit a base model.

    ``shapes``: (d_out, d_in) of each linear module by its path. Raises ExpertError.
    """
    for module, pair in expert.modules.items():
        if module not in shapes:
            raise ExpertError(expert.name, f"{module}: the base model has no such linear module")
        found = (pair.b.shape[0], pair.a.shape[1])
        if found != shapes[module]:
            raise ExpertError(
                expert.name, f"{module}: shape {found}, the base has {shapes[module]}"
            )


def _read_config(name: str, data: bytes) -> tuple[int, float, tuple[str, ...]]:
    fields = _config_fields(name, data)
    if fields.get("peft_type") != "LORA":
        raise ExpertError(name, f"{CONFIG_FILE}: peft_type must be LORA")
    for field, value in fields.items():
        if field not in _HARMLESS and value not in _NEUTRAL.get(field, _OFF):
            raise ExpertError(name, f"{CONFIG_FILE}: {field[:80]!r} is set, which is not supported")
    rank, alpha, targets = (fields.get(key) for key in ("r", "lora_alpha", "target_modules"))
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ExpertError(name, f"{CONFIG_FILE}: r must be an integer from 1 to {MAX_RANK}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= MAX_ALPHA:
        raise ExpertError(name, f"{CONFIG_FILE}: lora_alpha must be a finite number")
    if not isinstance(targets, list) or not all(isinstance(t, str) and t for t in targets):
        raise ExpertError(name, f"{CONFIG_FILE}: target_modules must be a list of names")
    return rank, float(alpha) / rank, tuple(targets)


def _config_fields(name: str, data: bytes) -> dict[str, Any]:
    if len(data) > MAX_CONFIG_BYTES:
        raise ExpertError(name, f"{CONFIG_FILE}: over {MAX_CONFIG_BYTES} bytes")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ExpertError(name, f"{CONFIG_FILE}: not JSON") from error
    if not isinstance(fields, dict):
        raise ExpertError(name, f"{CONFIG_FILE}: not a JSON object")
    return fields


def _modules_of(
    name: str, headers: Mapping[str, TensorHeader], rank: int, targets: tuple[str, ...]
) -> list[str]:
    """Module paths, each with exactly its two factors of the configured rank."""
    modules: dict[str, dict[str, TensorHeader]] = {}
    for key, header in headers.items():
        module, side = _split_key(name, key)
        if module.rsplit(".", 1)[-1] not in targets:
            raise ExpertError(name, f"{module[:80]}: not among the config's target_modules")
        modules.setdefault(module, {})[side] = header
    for module, sides in modules.items():
        a, b = (sides[side].shape if side in sides else () for side in "AB")
        if len(a) != 2 or len(b) != 2:
            raise ExpertError(name, f"{module}: needs one lora_A and one lora_B matrix")
        if a[0] != rank or b[1] != rank:
            raise ExpertError(name, f"{module}: rank differs from the config's {rank}")
    return sorted(modules)


def _split_key(name: str, key: str) -> tuple[str, str]:
    for side in "AB":
        suffix = f".lora_{side}.weight"
        if key.startswith(_PREFIX) and key.endswith(suffix):
            return key[len(_PREFIX) : -len(suffix)], side
    raise ExpertError(name, f"{WEIGHTS_FILE}: unexpected tensor {key[:80]!r}")


def _factors(tensors: Mapping[str, NDArray[np.float32]], module: str) -> Factors:
    a, b = (tensors[f"{_PREFIX}{module}.lora_{side}.weight"] for side in "AB")
    return Factors(a, b)


def _tensors(name: str, weights: bytes) -> dict[str, NDArray[np.float32]]:
    deserialize: Any = safetensors.deserialize  # its stub has no types
    try:
        return {key: _array(tensor) for key, tensor in deserialize(weights)}
    except (safetensors.SafetensorError, ValueError) as error:
        raise ExpertError(name, f"{WEIGHTS_FILE}: safetensors refuses it") from error


def _array(tensor: Mapping[str, Any]) -> NDArray[np.float32]:
    """One tensor of the checked file as float32; numpy knows no bfloat16."""
    data, shape = tensor["data"], tensor["shape"]
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    dtype = {"F16": "<f2", "F32": "<f4"}[tensor["dtype"]]
    return np.frombuffer(data, dtype).astype(np.float32).reshape(shape)
