"""An expert: a LoRA adapter in PEFT's file format, validated before use.

An expert's folder holds ``adapter_config.json`` and ``adapter_model.safetensors``. What PEFT
itself would load means here what it means there, or is refused with what to do.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.header import DTYPE_BYTES, HeaderError, TensorHeader, read_header
from rankloom_adapters.lora_config import AdapterConfig, LoraError, read_config
from rankloom_adapters.lora_patterns import PatternError, PatternMatcher
from rankloom_adapters.lora_tensors import LoraTensors, lora_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# Key in the weight file's metadata: SHA-256 of the weight file of the base model in training.
BASE_DIGEST = "base_sha256"
_SHA256 = re.compile("[0-9a-f]{64}")
_EXPONENT: Mapping[str, np.unsignedinteger[Any]] = {
    "F32": np.uint32(0x7F800000),
    "F16": np.uint16(0x7C00),
    "BF16": np.uint16(0x7F80),
}
_PIECE = 1 << 16  # numbers; small enough for the processor's cache


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

    ``digest``: SHA-256 of the weight file. ``rank``: the largest of its modules. ``scale``: above
    0. ``modules``: by module path. ``base_digest``: SHA-256 of the weight file of the base model
    in training, None where the expert does not name it. ``config_digest``: SHA-256 of its other
    file, on which scale and factors depend too.
    """

    name: str
    digest: str
    rank: int
    scale: float
    modules: Mapping[str, Factors]
    base_digest: str | None = None
    config_digest: str = ""

    @property
    def num_bytes(self) -> int:
        """Size of the factors in memory."""
        return sum(pair.a.nbytes + pair.b.nbytes for pair in self.modules.values())


def parse_expert(name: str, config: bytes, weights: bytes) -> Expert:
    """Parses and validates an adapter from the bytes of its two files.

    What PEFT writes in other ways (rsLoRA, patterns of ranks and alphas) becomes one scale and
    factors that have the same product. Raises ExpertError.
    """
    with _refusals(name, CONFIG_FILE):
        settings = read_config(config)
    with _refusals(name, WEIGHTS_FILE):
        header = read_header(weights)
        tensors = lora_tensors(header.tensors)
    base = header.metadata.get(BASE_DIGEST)
    if base is not None and not _SHA256.fullmatch(base):
        raise ExpertError(name, f"{WEIGHTS_FILE}: {BASE_DIGEST} is not a SHA-256 digest")
    with _refusals(name, CONFIG_FILE):
        scales = module_scales(settings, tensors)
    # Check all before converting any, so that a refused file takes no more memory.
    for module, sides in tensors.modules.items():
        if not all(_is_finite(weights, side) for side in sides):
            raise ExpertError(name, f"{module}: a weight is NaN or infinite")
    scale = _usual(scales.values())
    factors = {
        module: Factors(_array(weights, a), _array(weights, b))
        for module, (a, b) in tensors.modules.items()
    }
    for module, pair in factors.items():
        _multiply(name, module, pair, scales[module] / scale)
    rank = max(len(pair.a) for pair in factors.values())
    digests = [hashlib.sha256(data).hexdigest() for data in (weights, config)]
    return Expert(name, digests[0], rank, scale, factors, base, digests[1])


def module_scales(config: AdapterConfig, tensors: LoraTensors) -> Mapping[str, float]:
    """PEFT's factor of B A for each module of a file.

    Raises LoraError where the file and its configuration disagree, and PatternError.
    """
    matcher, scales = PatternMatcher(), {}
    for module, (a, b) in tensors.modules.items():
        if not config.chooses(module, matcher):
            raise LoraError(
                f"{module}: not among the config's target_modules (without exclude_modules, and "
                "within layers_to_transform), so that PEFT would ignore it; save the adapter again"
            )
        rank = config.rank_of(module, matcher)
        if (a.shape[0], b.shape[1]) != (rank, rank):
            raise LoraError(
                f"{module}: rank differs from the config's {rank} (r or rank_pattern); "
                "save the adapter again"
            )
        scales[module] = config.scale_of(module, matcher)
    return scales


def check_shapes(expert: Expert, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Checks that an expert fits a base model.

    ``shapes``: (d_out, d_in) of each linear module by its path. Raises ExpertError.
    """
    for module, pair in expert.modules.items():
        if module not in shapes:
            raise ExpertError(
                expert.name,
                f"{module}: the base model has no such linear module below its head; "
                "train the expert on this base",
            )
        found = (pair.b.shape[0], pair.a.shape[1])
        if found != shapes[module]:
            raise ExpertError(
                expert.name,
                f"{module}: shape {found}, the base has {shapes[module]}; "
                "train the expert on this base",
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
        raise ExpertError(
            expert.name,
            f"trained on base {found}, this one is {needed}; train it on this base, or stage it "
            "on a server with the other one",
        )


def _usual(scales: Iterable[float]) -> float:
    """The most frequent size of a scale, so that few factors have to change; never 0."""
    sizes = Counter(abs(scale) for scale in scales if scale)
    return sizes.most_common(1)[0][0] if sizes else 1.0


def _multiply(name: str, module: str, pair: Factors, ratio: float) -> None:
    """Multiplies the product of the factors, in place.

    Both take a part of it, and A the sign: that is what PEFT's linear combination does, whose
    result depends on how a product is divided between them. Raises ExpertError.
    """
    if ratio == 1.0:
        return
    root = math.sqrt(abs(ratio))
    with np.errstate(over="ignore", invalid="ignore"):
        pair.a[:] *= np.float32(math.copysign(root, ratio))
        pair.b[:] *= np.float32(root)
    if not (np.isfinite(pair.a).all() and np.isfinite(pair.b).all()):
        raise ExpertError(name, f"{module}: alpha is too large; usual is 2 · r")


@contextmanager
def _refusals(name: str, file: str) -> Iterator[None]:
    """Turns what is wrong with a file into an ExpertError."""
    try:
        yield
    except (HeaderError, LoraError, PatternError) as error:
        raise ExpertError(name, f"{file}: {error}") from error


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
