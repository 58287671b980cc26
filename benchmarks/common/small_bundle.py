"""A bundle so small that a thousand swaps take minutes.

Features and trees are trained on a part of the embedded data, in about a minute. Decoder and
experts are random. The experts are strong, so that replacing one changes every score.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from benchmarks.common.bundles import OPTIONS, keep_users, with_random_decoder
from benchmarks.common.workload import ModelShape
from rankloom_adapters.bundle import open_bundle, seal
from rankloom_training.progress import Progress
from rankloom_training.synthetic import write_synthetic
from rankloom_training.train import train_bundle

SHAPE = ModelShape("XS", 128, 2, 4, 2, 256, 4096, tied=True)
NUM_USERS = 60
STRENGTH = 32.0  # times B_STD of the workload


def make_small_bundle(folder: Path, shape: ModelShape = SHAPE) -> Path:
    """Trains on a part of the embedded data under ``folder``, and returns the bundle's folder."""
    write_synthetic(folder / "data")
    keep_users(folder / "data" / "interactions.csv", NUM_USERS)
    train_bundle(folder / "data", folder / "trained", OPTIONS, Progress())
    return with_strong_experts(folder / "trained", folder, shape)


def with_strong_experts(trained: Path, folder: Path, shape: ModelShape) -> Path:
    """Writes a copy of a bundle with a random decoder and strong experts under ``folder``."""
    out = folder / "bundle"
    with_random_decoder(trained, out, shape)
    for file in out.glob("experts/*/*.safetensors"):
        tensors = safetensors.numpy.load(file.read_bytes())
        stronger = {
            key: np.asarray(array * np.float32(STRENGTH if ".lora_B." in key else 1.0))
            for key, array in tensors.items()
        }
        file.write_bytes(safetensors.numpy.save(stronger))
    seal(out, open_bundle(trained).metadata)
    return out
