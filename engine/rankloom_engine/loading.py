"""From files to a decoder with its experts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from rankloom_adapters.expert import Expert
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_engine.checks import check_once
from rankloom_engine.compiling import compile_regions
from rankloom_engine.decoder_files import load_decoder_model, read_config
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import install
from rankloom_engine.explain import max_explained_tokens
from rankloom_engine.graphs import CudaGraphs
from rankloom_engine.kernels import speed_up
from rankloom_engine.model import Decoder
from rankloom_engine.number_format import cpu_flags, dtype_for
from rankloom_engine.parts import EngineParts
from rankloom_engine.passes import Recorded
from rankloom_engine.projector import Projector

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


def dtype_on(device: str, dtype: str) -> str:
    """The number format, or for "auto" the one that the device computes fast in.

    bfloat16 needs a CPU with units for it (AMX, AVX512-BF16), or a GPU that has it.
    """
    if dtype != "auto":
        return dtype
    if not device.startswith("cuda"):
        return dtype_for(cpu_flags())
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bf16 else "float32"


def load_decoder(
    parts: EngineParts,
    hardware: Hardware | None = None,
    expert_bytes: int = 0,
    cache: ExpertCache | None = None,
) -> Decoder:
    """Loads and checks the model, and puts the experts into its first slots; takes seconds.

    ``expert_bytes``: memory for experts' slots; the parts' own experts have room in any case.
    ``cache``: experts that may be in memory already, and where they are kept.
    Raises BundleError, ExpertError or ModelError, all ValueErrors that name the part.
    """
    hardware = hardware or Hardware()
    experts = [expert.load(cache) for expert in parts.experts]
    config = read_config(parts.config.read())
    check_once(config, parts.format.max_tokens, max_explained_tokens(parts.format))
    model = load_decoder_model(config, parts.weights.pieces(), DTYPES[hardware.dtype])
    table = cast("Any", model).get_input_embeddings()
    projector = Projector.from_bytes(parts.projector.read(), table.embedding_dim)
    projector.check_fits(parts.latent_dim, parts.num_columns)
    move(model, hardware)
    decoder = Decoder(
        model,
        projector.to(hardware.device),
        yes=parts.format.liked,
        no=parts.format.disliked,
        digest=_digest(parts, hardware),
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
    rank = max(expert.rank for expert in experts)
    widths: dict[str, int] = {
        module: pair.a.shape[1] + pair.b.shape[0]
        for expert in experts
        for module, pair in expert.modules.items()
    }
    numbers = rank * sum(widths.values())
    allowed = max_bytes // max(numbers * number_bytes, 1)
    return max(len(experts), min(allowed, MAX_SLOTS))


def move(model: nn.Module, hardware: Hardware) -> None:
    """To the device, in its number format, in place. Raises ModelError."""
    # Angles grow with the position: rounded to bfloat16, late tokens stand somewhere else.
    angles = {n: buffer for n, buffer in model.named_buffers() if n.endswith("inv_freq")}
    try:
        model.to(hardware.device, DTYPES[hardware.dtype])
        for name, buffer in angles.items():
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, buffer.to(hardware.device))
    except (AssertionError, RuntimeError) as error:  # as torch says that there is no such device
        raise ModelError(f"device {hardware.device}: not to be had here") from error


def _digest(parts: EngineParts, hardware: Hardware) -> bytes:
    files = (parts.config, parts.weights, parts.projector)
    digests = [bytes.fromhex(file.sha256) for file in files]
    own = hashlib.sha256(hardware.dtype.encode()).digest()
    return hashlib.sha256(b"".join([*digests, own])).digest()
