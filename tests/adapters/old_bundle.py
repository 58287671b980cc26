"""Bundles as rankloom wrote them in format 2, and in format 1."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rankloom_adapters.bundle import MANIFEST

OLD_FILES = {
    "gate.json": b'{"groups": ["a"]}',
    "experts/a/adapter_config.json": b"config",
    "experts/a/adapter_model.safetensors": bytes(range(256)),
    "features/encoder.onnx": b"onnx",
}
OLD_METADATA = {"epoch": "0a1b", "protocol": "p1"}


def write_old(
    folder: Path, version: int = 2, more: Mapping[str, bytes] = MappingProxyType({})
) -> Path:
    """A sealed bundle of an older format; ``more``: other parts by name."""
    files = OLD_FILES | dict(more)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    parts = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for name, data in files.items()
    }
    fields = {"format": version, "metadata": OLD_METADATA, "files": parts}
    (folder / MANIFEST).write_text(json.dumps(fields, indent=1, sort_keys=True))
    return folder
