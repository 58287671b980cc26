"""An expert's two files from a folder: read once, and never before their sizes are known."""

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
# A link may lead anywhere, and opening a pipe would wait for its writer.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True, eq=False)
class ExpertFiles:
    """The bytes that were checked, which are the ones to keep, and what they say."""

    config: bytes
    weights: bytes
    expert: Expert

    @property
    def digest(self) -> str:
        """SHA-256 of the one and of the other, as a bundle's manifest has them."""
        files = (self.config, self.weights)
        return " ".join(hashlib.sha256(data).hexdigest() for data in files)


def read_expert(name: str, folder: Path) -> ExpertFiles:
    """A validated expert from a folder in PEFT's format; its other files are not looked at.

    Raises ExpertError.
    """
    config = _read(name, folder / CONFIG_FILE, MAX_CONFIG_BYTES)
    weights = _read(name, folder / WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
    return ExpertFiles(config, weights, parse_expert(name, config, weights))


def _read(name: str, path: Path, max_bytes: int) -> bytes:
    try:
        # An opener, because a folder that is opened before is not closed again.
        with open(path, "rb", opener=lambda path, _: os.open(path, _FLAGS)) as file:
            found = os.fstat(file.fileno())
            _check_file(name, path, found, max_bytes)
            if path.name == WEIGHTS_FILE:
                # What is no such file is not read to its end to find that out.
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
    if found.st_nlink != 1:  # the other name may be anywhere, and anyone's
        raise ExpertError(name, f"{path.name}: a hard link, its file has other names")
    if found.st_size > max_bytes:
        raise ExpertError(name, f"{path.name}: {found.st_size} bytes; {max_bytes} are allowed")


def _check_start(name: str, start: bytes, num_bytes: int) -> None:
    try:
        header_length(start, num_bytes)
    except HeaderError as error:
        raise ExpertError(name, f"{WEIGHTS_FILE}: {error}") from error
