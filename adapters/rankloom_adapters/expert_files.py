"""Reads an expert's two files from a folder, once, after a check of their sizes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from rankloom_adapters.expert import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Expert,
    ExpertError,
    parse_expert,
)
from rankloom_adapters.header import HeaderError, header_length
from rankloom_adapters.lora_config import MAX_CONFIG_BYTES

MAX_WEIGHTS_BYTES = 256 << 20
# No links, which may lead anywhere; no blocking, since opening a pipe waits for its writer.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_PICKLE = "adapter_model.bin"
_SHARDS = ("adapter_model-*.safetensors", "adapter_model.safetensors.index.json")


@dataclass(frozen=True, slots=True, eq=False)
class ExpertFiles:
    """The checked bytes of both files, and the expert in them."""

    config: bytes
    weights: bytes
    expert: Expert

    @property
    def digest(self) -> str:
        """Both SHA-256 digests, as in a bundle's manifest, with a space between."""
        files = (self.config, self.weights)
        return " ".join(hashlib.sha256(data).hexdigest() for data in files)


def read_expert(name: str, folder: Path) -> ExpertFiles:
    """Reads and validates an expert in PEFT's format; ignores other files in the folder.

    Raises ExpertError.
    """
    config = _read(name, folder / CONFIG_FILE, MAX_CONFIG_BYTES)
    weights = _read(name, folder / WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
    return ExpertFiles(config, weights, parse_expert(name, config, weights))


def _read(name: str, path: Path, max_bytes: int) -> bytes:
    try:
        # An opener, because open() does not close a descriptor of a folder that it is given.
        with open(path, "rb", opener=_opened) as file:
            found = os.fstat(file.fileno())
            _check_file(name, path, found, max_bytes)
            # Refuse other files early, without reading all of them.
            start = file.peek(len(_LFS_POINTER))
            if start.startswith(_LFS_POINTER):
                raise ExpertError(
                    name, f"{path.name}: a Git LFS pointer, not the file; run 'git lfs pull'"
                )
            if path.name == WEIGHTS_FILE:
                _check_start(name, start, found.st_size)
            data = file.read(found.st_size + 1)
    except OSError as error:
        raise ExpertError(name, f"{path.name}: {_reason(path, error)}") from error
    if len(data) != found.st_size:
        raise ExpertError(name, f"{path.name}: it changed while it was read; try again")
    return data


def _opened(path: str, _: int) -> int:
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        blob = _hub_blob(Path(path)) if error.errno == errno.ELOOP else None
        if blob is None:
            raise
    return os.open(blob, _FLAGS)


def _hub_blob(path: Path) -> Path | None:
    """The file that a link in Hugging Face's cache means, None for any other link.

    The cache keeps a model as models--OWNER--NAME, where links of snapshots/REVISION lead to
    files of blobs. A link to anywhere else is not followed.
    """
    folder = path.parent.resolve()
    models = (each for each in folder.parents if each.name.startswith("models--"))
    root = next((each for each in models if folder.is_relative_to(each / "snapshots")), None)
    try:
        blob = path.resolve(strict=True)
    except (OSError, RuntimeError):  # it leads nowhere, or to itself
        return None
    return blob if root is not None and blob.parent == root / "blobs" else None


def _reason(path: Path, error: OSError) -> str:
    """Why a file cannot be read, and what to do."""
    if error.errno == errno.ELOOP:
        return "a link, which may lead anywhere; copy the folder with 'cp -rL'"
    reason = f"cannot be read: {error.strerror}"
    if error.errno != errno.ENOENT:
        return reason
    if path.name == WEIGHTS_FILE and (path.parent / _PICKLE).exists():
        return f"{reason}; {_PICKLE} is a pickle, which can run code: save with safetensors"
    if path.name == WEIGHTS_FILE and any(any(path.parent.glob(shards)) for shards in _SHARDS):
        return f"{reason}; it is in several files: save it as one"
    return f"{reason}; an expert's folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"


def _check_file(name: str, path: Path, found: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ExpertError(name, f"{path.name}: not a regular file")
    if found.st_nlink != 1:  # somebody else may change it by its other name
        raise ExpertError(name, f"{path.name}: a hard link: the file has other names; copy it")
    if found.st_size > max_bytes:
        remedy = "save it in bfloat16, or train with a lower rank"
        raise ExpertError(
            name, f"{path.name}: {found.st_size} bytes; {max_bytes} are allowed: {remedy}"
        )


def _check_start(name: str, start: bytes, num_bytes: int) -> None:
    try:
        header_length(start, num_bytes)
    except HeaderError as error:
        raise ExpertError(name, f"{WEIGHTS_FILE}: {error}") from error
