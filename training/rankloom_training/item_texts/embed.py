"""Has a text encoder make the vector of each item's text; those that stand already stay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.checkpoints import EVERY_S
from rankloom_training.data import DataError
from rankloom_training.data.item_vectors import ID, VECTOR
from rankloom_training.reccot.text_model import TextModel

AT_ONCE = 64
DIGEST = "text_digest"
_FORMAT, _ENCODER = b"rankloom.item_vectors", b"rankloom.encoder"
_SCHEMA = pa.schema(
    [(ID, pa.string()), (DIGEST, pa.string()), (VECTOR, pa.list_(pa.float32()))],
    metadata={_FORMAT: b"1"},
)
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class ItemVector:
    """``text_digest``: of what the encoder read. ``vector``: (dim,) float32."""

    item_id: str
    text_digest: str
    vector: NDArray[np.float32]


def item_text(item: Item) -> str:
    """What the encoder reads of an item: title, labels, description."""
    labels = ", ".join(item.attributes)
    return ". ".join(part for part in (item.title, labels, item.description) if part)


def embed_items(
    catalogue: Catalogue, encoder: TextModel, name: str, out: Path, on_step: OnStep
) -> int:
    """Writes the file ``out``, and returns how many vectors were made.

    ``name``: of the encoder. Vectors that an earlier run of the same encoder made of the same
    texts stay, those of other items too; of what is made, five minutes at most are lost if the run
    is killed. Raises DataError if ``out`` is a file of other origin.
    """
    kept = _earlier(out, name)
    missing = [item for item in catalogue.items if not _is_known(item, kept)]
    written = time.monotonic()
    for start in range(0, len(missing), AT_ONCE):
        part = missing[start : start + AT_ONCE]
        kept |= {each.item_id: each for each in _made(part, encoder)}
        on_step(start + len(part), len(missing))
        if time.monotonic() - written >= EVERY_S:
            _write(out, kept.values(), name)
            written = time.monotonic()
    _write(out, kept.values(), name)
    return len(missing)


def check_replaceable(path: Path) -> None:
    """Raises DataError if a file of other origin is there."""
    if path.exists() and _FORMAT not in _metadata(path):
        raise DataError(f"{path}: was not written by `rankloom items embed`; move it away")


def _earlier(path: Path, name: str) -> dict[str, ItemVector]:
    check_replaceable(path)
    if not path.exists() or _metadata(path).get(_ENCODER) != name.encode():
        return {}
    rows = parquet.read_table(path)
    found = zip(
        rows.column(ID).to_pylist(),
        rows.column(DIGEST).to_pylist(),
        np.stack(rows.column(VECTOR).to_numpy()),
        strict=True,
    )
    return {item_id: ItemVector(item_id, digest, vector) for item_id, digest, vector in found}


def _is_known(item: Item, kept: dict[str, ItemVector]) -> bool:
    found = kept.get(item.item_id)
    return found is not None and found.text_digest == _digest(item)


@torch.inference_mode()
def _made(items: Sequence[Item], encoder: TextModel) -> list[ItemVector]:
    windows = encoder.windows.windows([item_text(item) for item in items])
    vectors = encoder.eval().vectors(windows, len(items)).numpy()
    rows = zip(items, vectors, strict=True)
    return [ItemVector(item.item_id, _digest(item), vector) for item, vector in rows]


def _write(path: Path, vectors: Iterable[ItemVector], name: str) -> None:
    """All at once or nothing."""
    rows = list(vectors)
    schema = _SCHEMA.with_metadata({**_SCHEMA.metadata, _ENCODER: name.encode()})
    columns = [
        [each.item_id for each in rows],
        [each.text_digest for each in rows],
        [each.vector for each in rows],
    ]
    unfinished = path.with_name(path.name + ".tmp")
    parquet.write_table(pa.table(columns, schema), unfinished)
    os.replace(unfinished, path)


def _metadata(path: Path) -> dict[bytes, bytes]:
    try:
        return parquet.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}


def _digest(item: Item) -> str:
    return sha256(item_text(item).encode()).hexdigest()[:16]
