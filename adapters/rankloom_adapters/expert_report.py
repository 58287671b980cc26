"""What is in an expert's folder, for people: base, ranks, alphas, modules, conversions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rankloom_adapters.expert import Expert, module_scales
from rankloom_adapters.expert_files import read_expert
from rankloom_adapters.header import read_header
from rankloom_adapters.lora_config import AdapterConfig, read_config
from rankloom_adapters.lora_patterns import PatternMatcher
from rankloom_adapters.lora_tensors import LoraTensors, lora_tensors
from rankloom_adapters.norms import check_norms

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True, eq=False)
class ExpertReport:
    """What one expert's files say, and how they are read.

    ``base_name``: as the configuration says it, "" if it does not. ``modules``: number of layers
    by the last part of the module's path. ``conversions``: what was changed when it was read.
    """

    expert: Expert
    base_name: str
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    is_rank_stabilised: bool
    modules: Mapping[str, int]
    dtypes: tuple[str, ...]
    num_bytes: int
    conversions: tuple[str, ...]


def inspect_expert(name: str, folder: Path) -> ExpertReport:
    """Reads an expert as a server does. Raises ExpertError where a server would refuse it."""
    files = read_expert(name, folder)
    check_norms(files.expert, ())
    config = read_config(files.config)
    tensors = lora_tensors(read_header(files.weights).tensors)
    matcher = PatternMatcher()
    headers = [side for pair in tensors.modules.values() for side in pair]
    return ExpertReport(
        expert=files.expert,
        base_name=config.base_name,
        ranks=_distinct(config.rank_of(module, matcher) for module in tensors.modules),
        alphas=_distinct(config.alpha_of(module, matcher) for module in tensors.modules),
        is_rank_stabilised=config.is_rank_stabilised,
        modules=Counter(module.rpartition(".")[2] for module in tensors.modules),
        dtypes=tuple(sorted({header.dtype for header in headers})),
        num_bytes=len(files.config) + len(files.weights),
        conversions=tuple(_conversions(files.expert, config, tensors)),
    )


def _distinct(values: Iterable[_Number]) -> tuple[_Number, ...]:
    return tuple(sorted(set(values)))


def _conversions(expert: Expert, config: AdapterConfig, tensors: LoraTensors) -> Iterable[str]:
    scales = module_scales(config, tensors)
    if config.is_rank_stabilised:
        yield "rsLoRA: alpha / √r became the scale"
    if folded := sum(scale != expert.scale for scale in scales.values()):
        yield f"alpha / r of {folded} modules differs: folded into their factors"
    if not all(scales.values()):
        yield "alpha 0: these modules change nothing"
    if tensors.adapter_name:
        yield f"the adapter's name {tensors.adapter_name!r} left out of the keys"
    if not tensors.has_prefix:
        yield "keys without PEFT's prefix read as if they had it"
