"""A bundle whose language model has an opinion: one random expert in place of all.

A short training leaves margins that hardly differ from row to row, so that equal scores would show
little. This expert is good for nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import safetensors.numpy

from rankloom_adapters.bundle import open_bundle, seal

SPREAD = 0.05  # of what is added to each number of the expert


def with_random_expert(trained: Path, out: Path) -> Path:
    """A sealed copy in which every expert is the same random one. Returns ``out``."""
    shutil.copytree(trained, out)
    for file in out.glob("experts/*/*.safetensors"):
        random = np.random.default_rng(0)  # the same for each
        moved = {
            name: (value + random.normal(0.0, SPREAD, value.shape)).astype(np.float32)
            for name, value in sorted(safetensors.numpy.load(file.read_bytes()).items())
        }
        file.write_bytes(safetensors.numpy.save(moved))
    seal(out, open_bundle(trained).metadata)
    return out
