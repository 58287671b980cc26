"""From a bundle to a running engine's parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, BundleError, Part, expert_part
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.expert import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Expert,
    check_base,
    parse_expert,
)
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_adapters.router import Router
from rankloom_engine.compiling import compile_regions
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import install
from rankloom_engine.explain import MAX_EXPLAIN_TOKENS
from rankloom_engine.graphs import CudaGraphs
from rankloom_engine.kernels import speed_up
from rankloom_engine.model import Decoder, check_positions, load_decoder_model, self_check
from rankloom_engine.passes import Recorded
from rankloom_engine.projector import Projector
from rankloom_engine.prompt import PromptBuilder, PromptFormat
from rankloom_engine.weaver import Weaver

_DECODER_PARTS = (
    parts.BASE_CONFIG,
    parts.BASE_WEIGHTS,
    parts.BASE_TOKENIZER,
    parts.PROJECTOR,
    parts.PROMPT,  # verdicts are tokens that it names
)
_PROMPT_PARTS = (parts.CATALOGUE, parts.BASE_TOKENIZER, parts.PROMPT, parts.ITEM_VECTORS)
MAX_SLOTS = 256
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where the model runs, in which number format (a key of DTYPES), and how.

    ``compiled``: with torch.compile, which takes some seconds and a C++ compiler; on a GPU
    small passes are recorded as CUDA graphs too.
    """

    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """The model with its experts, and what surrounds it."""

    weaver: Weaver
    decoder: Decoder


def load_engine(
    bundle: Bundle,
    hardware: Hardware | None = None,
    expert_bytes: int = 0,
    cache: ExpertCache | None = None,
) -> Engine:
    """Loads and checks everything that scoring needs; takes seconds.

    ``expert_bytes``: memory for experts' slots; room for the bundle's own there is in any case.
    ``cache``: where experts may be already, and are kept.
    Raises BundleError, ExpertError, GateError, CalibrationError or ModelError, all
    ValueErrors that name the part.
    """
    weaver = load_weaver(bundle)
    experts = [load_expert(bundle, name, cache) for name in weaver.router.experts]
    fmt = PromptFormat.from_bytes(bundle.read(parts.PROMPT))
    return Engine(weaver, _load_decoder(bundle, fmt, experts, hardware or Hardware(), expert_bytes))


def load_weaver(bundle: Bundle, builder: PromptBuilder | None = None) -> Weaver:
    """All but the model: tokenizer, router, calibration, item vectors. Raises as load_engine.

    ``builder``: one that was made from the same parts.
    """
    router = Router.from_bytes(bundle.read(parts.ROUTER))
    builder = builder or _load_builder(bundle)
    if builder.dim != router.dim:
        raise ModelError("item vectors: not of the router's latent space")
    return Weaver(
        router,
        tuple(_part(bundle, expert_part(name, WEIGHTS_FILE)).sha256 for name in router.experts),
        Calibration.from_bytes(bundle.read(parts.CALIBRATION)),
        builder,
    )


def _load_builder(bundle: Bundle) -> PromptBuilder:
    tokenizer = load_tokenizer(bundle.read(parts.BASE_TOKENIZER))
    fmt = PromptFormat.from_bytes(bundle.read(parts.PROMPT))
    return PromptBuilder(tokenizer, fmt, load_item_vectors(bundle.read(parts.ITEM_VECTORS)))


def decoder_key(bundle: Bundle) -> str:
    """Of all that a decoder is made from, by the manifest: equal keys can share one."""
    return _key(bundle, _DECODER_PARTS)


def builder_key(bundle: Bundle) -> str:
    """Of all that prompts are built from, what a builder keeps of the catalogue too."""
    return _key(bundle, _PROMPT_PARTS)


def _key(bundle: Bundle, names: Sequence[str]) -> str:
    return " ".join(_part(bundle, name).sha256 for name in names)


def expert_keys(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Of each expert's two files, by the manifest, as ExpertFiles.digest. Raises BundleError."""
    files = (CONFIG_FILE, WEIGHTS_FILE)
    return [
        " ".join(_part(bundle, expert_part(name, file)).sha256 for file in files) for name in names
    ]


def _part(bundle: Bundle, name: str) -> Part:
    if name not in bundle.parts:
        raise BundleError(name, "not in the manifest")
    return bundle.parts[name]


def load_expert(bundle: Bundle, name: str, cache: ExpertCache | None = None) -> Expert:
    """One validated expert of a bundle. Raises BundleError or ExpertError."""
    [digest] = expert_keys(bundle, [name])
    read = partial(_read_expert, bundle, name)
    expert = cache.get(name, digest, read) if cache else read()
    check_base(expert, _part(bundle, parts.BASE_WEIGHTS).sha256)
    return expert


def _read_expert(bundle: Bundle, name: str) -> Expert:
    config = bundle.read(expert_part(name, CONFIG_FILE))
    return parse_expert(name, config, bundle.read(expert_part(name, WEIGHTS_FILE)))


def load_tokenizer(data: bytes) -> Tokenizer:
    """A fast tokenizer from the bytes of tokenizer.json. Raises ModelError."""
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises bare Exception
        raise ModelError("base: tokenizer.json cannot be read") from error


def load_item_vectors(data: bytes) -> NDArray[np.float32]:
    """(items, dim) float32, all finite. Raises ModelError."""
    try:
        vectors = safetensors.numpy.load(data)["vectors"].astype(np.float32)
    except Exception as error:  # safetensors' own class is not exported
        raise ModelError("item vectors: cannot be read") from error
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ModelError("item vectors: not a finite matrix")
    return np.asarray(vectors)


def _load_decoder(
    bundle: Bundle,
    fmt: PromptFormat,
    experts: list[Expert],
    hardware: Hardware,
    expert_bytes: int,
) -> Decoder:
    files = [bundle.read(name) for name in (parts.BASE_CONFIG, parts.BASE_WEIGHTS, parts.PROJECTOR)]
    model = load_decoder_model(files[0], files[1])
    table = cast("Any", model).get_input_embeddings()
    check_positions(model, fmt.max_tokens + MAX_EXPLAIN_TOKENS)
    self_check(model, table.num_embeddings, fmt.max_tokens)
    projector = Projector.from_bytes(files[2], table.embedding_dim)
    _move(model, hardware)
    decoder = Decoder(
        model,
        projector.to(hardware.device),
        yes=fmt.liked,
        no=fmt.disliked,
        digest=_digest([*files, hardware.dtype.encode()]),
    )
    num_slots = _num_slots(experts, expert_bytes, DTYPES[hardware.dtype].itemsize)
    decoder.bank = install(model, experts, num_slots)
    regions = compile_regions(model) if hardware.compiled else []
    decoder.kernels_by_size = speed_up(model, regions)
    if hardware.compiled and table.weight.is_cuda:
        decoder.passes = Recorded(model, decoder.bank, CudaGraphs(table.weight.device))
    return decoder


def _num_slots(experts: Sequence[Expert], max_bytes: int, number_bytes: int) -> int:
    """As many as the bytes allow, between the bundle's own experts and MAX_SLOTS."""
    widest = max(experts, key=lambda expert: expert.rank)
    numbers = sum(pair.a.size + pair.b.size for pair in widest.modules.values())
    allowed = max_bytes // max(numbers * number_bytes, 1)
    return max(len(experts), min(allowed, MAX_SLOTS))


def _move(model: nn.Module, hardware: Hardware) -> None:
    # Angles grow with the position: rounded to bfloat16, late tokens stand somewhere else.
    angles = {n: buffer for n, buffer in model.named_buffers() if n.endswith("inv_freq")}
    try:
        model.to(hardware.device, DTYPES[hardware.dtype])
        for name, buffer in angles.items():
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, buffer.to(hardware.device))
    except (AssertionError, RuntimeError) as error:  # as torch says that there is no such device
        raise ModelError(f"device {hardware.device}: not to be had here") from error


def _digest(files: list[bytes]) -> bytes:
    return hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files)).digest()
