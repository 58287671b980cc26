"""The files of a local folder as the messages of an upload, read while they are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from rankloom.errors import InvalidRequestError
from rankloom_proto.v1 import rollout_pb2

CHUNK_BYTES: Final = 1024 * 1024
EXPERT_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
_MANIFEST: Final = "manifest.json"
_SIGNATURE: Final = "manifest.sig"


class FileUpload:
    """A header and the files after it, to be sent once.

    `error`: set when a file could not be read while it was sent. gRPC hides what an iterator of
    messages raises, so the client cancels the call and raises this instead.
    """

    def __init__(self, folder: str | Path, header: rollout_pb2.StageUploadHeader) -> None:
        """Raise InvalidRequestError if a file is missing."""
        self.error: InvalidRequestError | None = None
        self._folder, self._header = Path(folder), header
        self._names = EXPERT_FILES if header.expert else _bundle_files(self._folder)
        for name in self._names:
            if not (self._folder / name).is_file():
                raise _unreadable(self._folder / name, "no such file")

    def messages(self) -> Iterator[rollout_pb2.StageUploadRequest]:
        """Yield the messages; set `error` and raise it if a file cannot be read."""
        yield rollout_pb2.StageUploadRequest(header=self._header)
        try:
            for name in self._names:
                for data in _pieces(self._folder / name):
                    chunk = rollout_pb2.FileChunk(name=name, data=data)
                    yield rollout_pb2.StageUploadRequest(chunk=chunk)
        except OSError as error:
            self.error = _unreadable(Path(error.filename or self._folder), error.strerror)
            raise self.error from error


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes; an empty file is one empty piece."""
    with path.open("rb") as file:
        yield file.read(CHUNK_BYTES)
        while data := file.read(CHUNK_BYTES):
            yield data


def _bundle_files(folder: Path) -> tuple[str, ...]:
    """Return the names in a bundle's manifest, after those of the manifest and its signature."""
    path = folder / _MANIFEST
    try:
        listed = json.loads(path.read_bytes())["files"]
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _unreadable(path, "not the manifest of a bundle") from None
    if not isinstance(listed, dict) or not all(map(_is_inside, listed)):
        raise _unreadable(path, "lists paths outside the bundle")
    signature = (_SIGNATURE,) if (folder / _SIGNATURE).exists() else ()
    return (_MANIFEST, *signature, *listed)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.as_posix() == name and not path.is_absolute() and ".." not in path.parts


def _unreadable(path: Path, reason: str | None) -> InvalidRequestError:
    return InvalidRequestError.of_field("folder", f"{path}: {reason or 'cannot be read'}")
