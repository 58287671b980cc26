"""Random adapters, as the content of their two files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from adapters.adapter_files import PREFIX, joined_file
from rankloom_adapters.expert import BASE_DIGEST, CONFIG_FILE, WEIGHTS_FILE

BASE = "ba5e" * 16
SHAPES = {
    f"model.layers.{layer}.self_attn.{name}": (d_out, 16)
    for layer in range(2)
    for name, d_out in (("q_proj", 16), ("v_proj", 8))
}


@dataclass
class Tensor:
    """One tensor; ``fields`` replace true values in its header entry."""

    name: str
    dtype: str
    shape: list[int]
    data: bytes
    fields: dict[str, object] = field(default_factory=dict)


@dataclass
class Draft:
    """The content of the two files."""

    config: dict[str, object]
    tensors: list[Tensor]
    metadata: object

    def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / CONFIG_FILE).write_text(json.dumps(self.config))
        (folder / WEIGHTS_FILE).write_bytes(dump(self.tensors, self.metadata))


def good_draft(random: Random) -> Draft:
    rank, dtype = random.randint(2, 6), random.choice(["F32", "F16", "BF16"])
    tensors = []
    for module, (d_out, d_in) in SHAPES.items():
        for side, shape in (("A", [rank, d_in]), ("B", [d_out, rank])):
            name = f"{PREFIX}{module}.lora_{side}.weight"
            tensors.append(Tensor(name, dtype, shape, numbers(random, dtype, math.prod(shape))))
    config: dict[str, object] = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": random.choice([4, 16.0, 32]),
        "target_modules": ["q_proj", "v_proj"],
    }
    return Draft(config, tensors, random.choice([{"format": "pt"}, {BASE_DIGEST: BASE}]))


def numbers(random: Random, dtype: str, count: int) -> bytes:
    drawn = np.random.default_rng(random.getrandbits(64)).normal(size=count).astype("<f4")
    if dtype == "BF16":
        return (drawn.view("<u4") >> 16).astype("<u2").tobytes()
    return drawn.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def dump(tensors: list[Tensor], metadata: object) -> bytes:
    """The weight file; two tensors may have one name."""
    entries, payload = [f'"__metadata__":{json.dumps(metadata)}'] if metadata != {} else [], b""
    for one in tensors:
        indices = [len(payload), len(payload) + len(one.data)]
        true = {"dtype": one.dtype, "shape": one.shape, "data_offsets": indices}
        entries.append(f"{json.dumps(one.name)}:{json.dumps(true | one.fields)}")
        payload += one.data
    return joined_file(f"{{{','.join(entries)}}}".encode(), payload)
