"""Reads an expert's two files from a folder, once, after a check of their sizes."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from rankloom_adapters.expert import (
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    WEIGHTS_FILE,
    Expert,
    ExpertError,
    parse_expert,
)
from rankloom_adapters.header import HeaderError, header_length

MAX_WEIGHTS_BYTES = 256 << 20
# No links, which may lead anywhere; no blocking, since opening a pipe waits for its writer.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


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
        with open(path, "rb", opener=lambda path, _: os.open(path, _FLAGS)) as file:
            found = os.fstat(file.fileno())
            _check_file(name, path, found, max_bytes)
            if path.name == WEIGHTS_FILE:
                # Refuse other files early, without reading all of them.
                _check_start(name, file.peek(8), found.st_size)
            data = file.read(found.st_size + 1)
    except OSError as error:
        raise ExpertError(name, f"{path.name}: cannot be read: {error.strerror}") from error
    if len(data) != found.st_size:
        raise ExpertError(name, f"{path.name}: it changed while it was read")
    return data


def _check_file(name: str, path: Path, found: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ExpertError(name, f"{path.name}: not a regular file")
    if found.st_nlink != 1:  # somebody else may change it by its other name
        raise ExpertError(name, f"{path.name}: a hard link: the file has other names; copy it")
    if found.st_size > max_bytes:
        raise ExpertError(name, f"{path.name}: {found.st_size} bytes; {max_bytes} are allowed")


def _check_start(name: str, start: bytes, num_bytes: int) -> None:
    try:
        header_length(start, num_bytes)
    except HeaderError as error:
        raise ExpertError(name, f"{WEIGHTS_FILE}: {error}") from error
