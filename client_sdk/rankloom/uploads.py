"""The files of a local folder as the messages of an upload, read while they are sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any, Final

from rankloom.errors import InvalidRequestError
from rankloom_proto.v1 import rollout_pb2

CHUNK_BYTES: Final = 1024 * 1024
EXPERT_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
_MANIFEST: Final = "manifest.json"
_SIGNATURE: Final = "manifest.sig"


class FileUpload:
    """A header and the files after it, to be sent once.

    gRPC prints what an iterator of messages raises, so a file that cannot be read ends the call
    by `cancel`, which is given once the call has begun; `error` then says what was wrong.
    """

    def __init__(self, folder: Path, expert: str) -> None:
        """`expert`: empty for a bundle. Raises InvalidRequestError where a file is missing."""
        self.error: InvalidRequestError | None = None
        self.cancel: Future[Callable[[], object]] = Future()
        self._folder, self._expert = folder, expert
        self._names = EXPERT_FILES if expert else _bundle_files(folder)
        for name in self._names:
            if not (folder / name).is_file():
                raise _unreadable(folder / name, "no such file")

    def messages(self, terms: dict[str, Any]) -> Iterator[rollout_pb2.StageUploadRequest]:
        """Yield the messages; gRPC asks for them from a thread of its own."""
        header = rollout_pb2.StageUploadHeader(expert=self._expert, **terms)
        yield rollout_pb2.StageUploadRequest(header=header)
        try:
            for name in self._names:
                for data in _pieces(self._folder / name):
                    chunk = rollout_pb2.FileChunk(name=name, data=data)
                    yield rollout_pb2.StageUploadRequest(chunk=chunk)
        except OSError as error:
            self.error = _unreadable(Path(error.filename or self._folder), error.strerror)
            self.cancel.result()()


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes; an empty file is one empty piece."""
    with path.open("rb") as file:
        yield file.read(CHUNK_BYTES)
        while data := file.read(CHUNK_BYTES):
            yield data


def _bundle_files(folder: Path) -> tuple[str, ...]:
    """The names that a bundle's manifest lists, with those of the manifest and its signature."""
    path = folder / _MANIFEST
    try:
        listed = json.loads(path.read_bytes())["files"]
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _unreadable(path, "no manifest of a bundle") from None
    if not isinstance(listed, dict) or not all(map(_is_plain, listed)):
        raise _unreadable(path, "lists what is no path in the bundle")
    signature = (_SIGNATURE,) if (folder / _SIGNATURE).exists() else ()
    return (_MANIFEST, *signature, *listed)


def _is_plain(name: str) -> bool:
    """Whether it leads to nowhere but into the folder."""
    path = PurePosixPath(name)
    return path.as_posix() == name and not path.is_absolute() and ".." not in path.parts


def _unreadable(path: Path, reason: str | None) -> InvalidRequestError:
    return InvalidRequestError.of_field("folder", f"{path}: {reason or 'cannot be read'}")
