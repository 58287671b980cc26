"""An expert: a LoRA adapter in PEFT's file format, validated before use.

An expert's folder holds ``adapter_config.json`` and ``adapter_model.safetensors``. A setting
that changes the arithmetic beyond W + (alpha / r) B A is refused by name. So is a field that
this code does not know, because it may change the model too.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.header import (
    DTYPE_BYTES,
    HeaderError,
    TensorHeader,
    json_object,
    read_header,
)

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_RANK = 64
MAX_ALPHA = float(np.finfo(np.float32).max)
MAX_CONFIG_BYTES = 64 << 10
# Key in the weight file's metadata: SHA-256 of the weight file of the base model in training.
BASE_DIGEST = "base_sha256"
_SHA256 = re.compile("[0-9a-f]{64}")
_PREFIX = "base_model.model."
_PATH, _MAX_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"), 256
_EXPONENT: Mapping[str, np.unsignedinteger[Any]] = {
    "F32": np.uint32(0x7F800000),
    "F16": np.uint16(0x7C00),
    "BF16": np.uint16(0x7F80),
}
_PIECE = 1 << 16  # numbers; small enough for the processor's cache
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
    # The other initialisations also change the base model's own weights.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", "mica"),
}
# The only values that an unknown field may have.
_OFF: tuple[object, ...] = (None, False, "", [], {})
_HARMLESS = frozenset(
    {
        # Read below.
        *("peft_type", "r", "lora_alpha", "target_modules"),
        # Origin and training.
        *("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type"),
        *("inference_mode", "lora_dropout"),
        # Without effect while use_qalora and megatron_config are off.
        *("qalora_group_size", "megatron_core"),
    }
)


class ExpertError(ValueError):
    """The expert cannot be used: ``expert`` is its name, ``reason`` says why."""

    def __init__(self, expert: str, reason: str) -> None:
        super().__init__(f"expert {expert}: {reason}")
        self.expert = expert
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """A module's low-rank factors: ``a`` (r, d_in) and ``b`` (d_out, r), float32."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Expert:
    """A validated adapter: ΔW = ``scale`` · b a in each of its modules.

    ``digest``: SHA-256 of the weight file. ``modules``: by module path. ``base_digest``: SHA-256
    of the weight file of the base model in training, None where the expert does not name it.
    """

    name: str
    digest: str
    rank: int
    scale: float
    modules: Mapping[str, Factors]
    base_digest: str | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the factors in memory."""
        return sum(pair.a.nbytes + pair.b.nbytes for pair in self.modules.values())


def parse_expert(name: str, config: bytes, weights: bytes) -> Expert:
    """Parses and validates an adapter from the bytes of its two files. Raises ExpertError."""
    rank, scale, targets = _read_config(name, config)
    try:
        header = read_header(weights)
    except HeaderError as error:
        raise ExpertError(name, f"{WEIGHTS_FILE}: {error}") from error
    base = header.metadata.get(BASE_DIGEST)
    if base is not None and not _SHA256.fullmatch(base):
        raise ExpertError(name, f"{WEIGHTS_FILE}: {BASE_DIGEST} is not a SHA-256 digest")
    modules = _modules_of(name, header.tensors, rank, targets)
    # Check all before converting any, so that a refused file takes no more memory.
    for module, sides in modules.items():
        if not all(_is_finite(weights, side) for side in sides.values()):
            raise ExpertError(name, f"{module}: a weight is NaN or infinite")
    factors = {
        module: Factors(_array(weights, sides["A"]), _array(weights, sides["B"]))
        for module, sides in modules.items()
    }
    return Expert(name, hashlib.sha256(weights).hexdigest(), rank, scale, factors, base)


def check_shapes(expert: Expert, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Checks that an expert fits a base model.

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


def check_alike(expert: Expert, others: Sequence[Expert]) -> None:
    """Checks that an expert's modules have the shapes that the served experts have.

    This finds most errors before the model is loaded; `check_shapes` finds the others then.
    Raises ExpertError.
    """
    served = {
        module: (pair.b.shape[0], pair.a.shape[1])
        for other in others
        for module, pair in other.modules.items()
    }
    known = {module: pair for module, pair in expert.modules.items() if module in served}
    check_shapes(replace(expert, modules=known), served)


def check_base(expert: Expert, base_digest: str) -> None:
    """Refuses an expert that names another base model than this one.

    An expert that names none is accepted. ``base_digest``: SHA-256 of the base's weight file.
    Raises ExpertError.
    """
    if expert.base_digest is not None and expert.base_digest != base_digest:
        found, needed = expert.base_digest[:12], base_digest[:12]
        raise ExpertError(expert.name, f"trained on base {found}, this one is {needed}")


def _read_config(name: str, data: bytes) -> tuple[int, float, tuple[str, ...]]:
    fields = _config_fields(name, data)
    if fields.get("peft_type") != "LORA":
        raise ExpertError(name, f"{CONFIG_FILE}: peft_type must be LORA")
    for field, value in fields.items():
        if field not in _HARMLESS and not _is_off(field, value):
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
        return json_object(data)
    except HeaderError as error:
        raise ExpertError(name, f"{CONFIG_FILE}: {error}") from error


def _is_off(field: str, value: object) -> bool:
    """Compares types too: 0 == False, and a 0 in an unknown field may be the number of a layer."""
    return any(type(value) is type(off) and value == off for off in _NEUTRAL.get(field, _OFF))


def _modules_of(
    name: str, headers: Mapping[str, TensorHeader], rank: int, targets: tuple[str, ...]
) -> Mapping[str, Mapping[str, TensorHeader]]:
    """The two factors A and B of each module, by module path, sorted."""
    modules: dict[str, dict[str, TensorHeader]] = {}
    for key, header in headers.items():
        module, side = _split_key(name, key)
        if module.rsplit(".", 1)[-1] not in targets:
            raise ExpertError(name, f"{module}: not among the config's target_modules")
        modules.setdefault(module, {})[side] = header
    for module, sides in modules.items():
        a, b = (sides[side].shape if side in sides else () for side in "AB")
        if len(a) != 2 or len(b) != 2:
            raise ExpertError(name, f"{module}: needs one lora_A and one lora_B matrix")
        if a[0] != rank or b[1] != rank:
            raise ExpertError(name, f"{module}: rank differs from the config's {rank}")
    return dict(sorted(modules.items()))


def _split_key(name: str, key: str) -> tuple[str, str]:
    """Module path and side (A or B). The path appears in logs, so it must be plain text."""
    for side in "AB":
        suffix = f".lora_{side}.weight"
        if key.startswith(_PREFIX) and key.endswith(suffix):
            module = key[len(_PREFIX) : -len(suffix)]
            if len(module) <= _MAX_PATH and _PATH.fullmatch(module):
                return module, side
    raise ExpertError(name, f"{WEIGHTS_FILE}: unexpected tensor {key[:80]!r}")


def _bits(weights: bytes, header: TensorHeader) -> NDArray[Any]:
    """A tensor's stored bits, as a view of the file."""
    unsigned = f"<u{DTYPE_BYTES[header.dtype]}"
    return np.frombuffer(weights, unsigned, math.prod(header.shape), header.begin)


def _is_finite(weights: bytes, header: TensorHeader) -> bool:
    """Works in pieces to save memory. An exponent of all ones means NaN or infinity."""
    bits, ones = _bits(weights, header), _EXPONENT[header.dtype]
    pieces = (bits[at : at + _PIECE] for at in range(0, bits.size, _PIECE))
    return not any(((piece & ones) == ones).any() for piece in pieces)


def _array(weights: bytes, header: TensorHeader) -> NDArray[np.float32]:
    """A float32 copy of a tensor; numpy has no bfloat16."""
    bits = _bits(weights, header)
    if header.dtype == "BF16":  # the upper half of a float32
        wide: NDArray[np.uint32] = np.left_shift(bits, 16, dtype=np.uint32)
        return wide.view(np.float32).reshape(header.shape)
    stored = bits.view(f"<f{DTYPE_BYTES[header.dtype]}")
    return stored.astype(np.float32).reshape(header.shape)
