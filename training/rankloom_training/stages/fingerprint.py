"""What a stage is made from. Equal fingerprints make equal files, so they need no second run."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import rankloom
from rankloom_adapters import bundle as parts
from rankloom_training.data import Dataset
from rankloom_training.stages.stage import Stage

SOURCES = (".py", ".txt")  # modules, and sentences that they read
SHARED_CODE = ("rankloom_training.stages.artefacts", "rankloom_training.visibility")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a stage is made from.

    ``data``: digest of what was read of the log. ``options``: those that the stage reads.
    ``code``: module → digest of its source. ``needs``: stage → digest of its files.
    """

    version: str
    data: str
    options: Mapping[str, object]
    code: Mapping[str, str]
    needs: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """As it reads back from JSON, so that it can be compared with what was kept."""
        found: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return found


def fingerprint_of(stage: Stage, data: str, digests: Mapping[str, str]) -> Fingerprint:
    """``data``: of ``data_digest``. ``digests``: of the files of the stages that it needs."""
    modules = (type(stage).__module__, *SHARED_CODE, *stage.code)
    return Fingerprint(
        version=f"{rankloom.__version__}, bundle format {parts.FORMAT}",
        data=data,
        options=stage.options,
        code={name: code_digest(name) for name in modules},
        needs={kind.stage: digests[kind.stage] for kind in stage.needed_of(digests)},
    )


@functools.cache
def code_digest(name: str) -> str:
    """SHA-256 of the source of a module, or of all modules and texts of a package."""
    total = hashlib.sha256()
    for path in _sources(name):
        total.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


def _sources(name: str) -> list[Path]:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name}: no such module; correct the stage's code", name=name)
    origin = Path(spec.origin)
    if origin.stem != "__init__":
        return [origin]
    return sorted(path for path in origin.parent.rglob("*") if path.suffix in SOURCES)


def data_digest(dataset: Dataset) -> str:
    """SHA-256 of what was read, so that another reading of the same files counts as other data."""
    total = hashlib.sha256()
    for part in _pieces(dataset):
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def _pieces(dataset: Dataset) -> Iterator[bytes]:
    log = dataset.log
    for rows in (log.user, log.item, log.liked, log.time, log.split):
        yield rows.tobytes()
    yield json.dumps(log.user_ids).encode()
    yield dataset.catalogue.to_bytes()
    yield dataset.item_columns.to_bytes() if len(dataset.item_columns) else b""
    yield b"" if dataset.item_vectors is None else dataset.item_vectors.tobytes()
    yield repr((dataset.like_above, dataset.sampling)).encode()
    if dataset.reviews is not None:
        yield dataset.reviews.digest().encode()
