"""A bundle: an immutable folder with all that one revision serves, and its manifest.

The manifest lists each file (part) with its size and SHA-256; the digest of the manifest is
the digest of the bundle. A part that is served is read once and checked in memory, so that the
checked bytes are the served bytes; a part that is copied is read in chunks. A signature of the
manifest may stand beside it; it is not a part and does not change the digest.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rankloom_adapters.rate_limit import RateLimiter

MANIFEST = "manifest.json"
FORMAT = 3
PREVIOUS_FORMAT = 2  # what `rankloom bundle convert` reads
MAX_MANIFEST_BYTES = 4 << 20
SIGNATURE = "manifest.sig"
MAX_SIGNATURE_BYTES = 4 << 10
_UNFINISHED = ".tmp"
_PIECE_BYTES = 1 << 20
_NOT_PARTS = frozenset({MANIFEST, MANIFEST + _UNFINISHED, SIGNATURE, SIGNATURE + _UNFINISHED})
# No links, which may lead anywhere; no blocking, since opening a pipe waits for its writer.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

ATTRIBUTE_COLUMNS = "features/attribute_columns.json"  # absent where the catalogue says it
BASE_CONFIG = "base/config.json"
BASE_WEIGHTS = "base/model.safetensors"
BASE_TOKENIZER = "base/tokenizer.json"
CALIBRATION = "calibration.json"
CATALOGUE = "catalogue.jsonl"
ENCODER = "features/encoder.onnx"
FORMER_EVENTS = "features/events.jsonl"  # of earlier bundles; events belong to no bundle
ITEM_COLUMNS = "features/item_columns.safetensors"  # absent where the items have none
ITEM_GROUPS = "item_groups.json"  # absent where groups are clusters of users
ITEM_INDEX = "features/item_index.safetensors"  # absent in earlier bundles
ITEM_STATISTICS = "features/item_statistics.safetensors"
ITEM_VECTORS = "features/item_vectors.safetensors"
REVIEW_VECTORS = "reccot/review_vectors.sqlite"  # absent without towers
ROUTER = "router.json"
PROJECTOR = "projector.safetensors"
PROMPT = "prompt.json"
RATIONALES = "reccot/rationales.sqlite"  # absent where none were attached
RATED_REVIEWS = "features/rated_reviews.sqlite"  # absent with the one below
RATING_TOWERS = "features/rating_towers.onnx"  # absent where it was trained without reviews
RECIPE = "train.yaml"  # how it was trained; absent in bundles of other origin
TEXT_ENCODER = "reccot/encoder.onnx"  # with the two below: what made the vectors of reviews
TEXT_SETTINGS = "reccot/encoder.json"
TEXT_TOKENIZER = "reccot/tokenizer.json"
TOWERS = "reccot/towers.onnx"
TREES = "ranker/trees.onnx"
USER_MODEL = "features/user_model.safetensors"  # absent where it was trained without one


class BundleError(ValueError):
    """The bundle cannot be used: ``part`` is the file, ``reason`` says why."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"bundle: {part}: {reason}")
        self.part = part
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Part:
    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """An opened bundle; parts are checked as they are read.

    ``manifest``: its bytes. ``limiter``: limits the speed of reading; None: no limit.
    """

    folder: Path
    digest: str
    metadata: Mapping[str, Any]
    parts: Mapping[str, Part]
    manifest: bytes
    limiter: RateLimiter | None = None
    format: int = FORMAT

    def read(self, name: str) -> bytes:
        """Returns a part's bytes, checked against the manifest. Raises BundleError."""
        data = io.BytesIO()
        for piece in self.pieces(name):
            data.write(piece)
        return data.getvalue()

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yields a part's bytes as they are read.

        Do not trust them before the end: the last step compares the digest. Raises BundleError.
        """
        if name not in self.parts:
            raise BundleError(name, "not in the manifest")
        expected, digest = self.parts[name], hashlib.sha256()
        for piece in _pieces(self.folder, name, expected):
            digest.update(piece)
            if self.limiter is not None:
                self.limiter.wait(len(piece))
            yield piece
        if digest.hexdigest() != expected.sha256:
            raise BundleError(name, "altered: its SHA-256 is not the manifest's")

    def part(self, name: str) -> PartReader:
        """One part, to be read later. Raises BundleError where the manifest lacks it."""
        if name not in self.parts:
            raise BundleError(name, "not in the manifest")
        return PartReader(self, name)

    def check_part(self, name: str) -> None:
        """Reads a part and compares it with the manifest. Raises BundleError."""
        for _ in self.pieces(name):
            pass

    def check(self) -> None:
        """Checks every part. Raises BundleError for the first that differs from the manifest."""
        for name in self.parts:
            self.check_part(name)

    def experts(self) -> tuple[str, ...]:
        """Names of the bundle's experts, sorted."""
        names = {PurePosixPath(part).parts[1] for part in self.parts if part.startswith("experts/")}
        return tuple(sorted(names))


@dataclass(frozen=True, slots=True, eq=False)
class PartReader:
    """One part of a bundle for code that need not know its name."""

    bundle: Bundle
    name: str

    @property
    def sha256(self) -> str:
        """The digest that the manifest gives; the part need not be read for it."""
        return self.bundle.parts[self.name].sha256

    def read(self) -> bytes:
        """The part's bytes, checked against the manifest. Raises BundleError."""
        return self.bundle.read(self.name)

    def pieces(self) -> Iterator[bytes]:
        """The part's bytes as they are read; see ``Bundle.pieces``. Raises BundleError."""
        return self.bundle.pieces(self.name)


def expert_part(expert: str, file: str) -> str:
    """Name of the part with that file of an expert."""
    return f"experts/{expert}/{file}"


def open_bundle(
    folder: Path,
    limiter: RateLimiter | None = None,
    *,
    formats: Collection[int] = (FORMAT,),
    check: Callable[[Path, bytes], object] | None = None,
) -> Bundle:
    """Reads the manifest of a bundle, but no part yet. Raises BundleError.

    ``formats``: the formats that the caller can read. ``check``: gets the folder and the bytes of
    the manifest before they are parsed, and raises BundleError for those that nobody may use.
    """
    data = _read_small(folder, MANIFEST, MAX_MANIFEST_BYTES)
    if data is None:
        missing = f"cannot be read in {folder}: {os.strerror(errno.ENOENT)}"
        raise BundleError(MANIFEST, f"{missing}; give a folder that `rankloom train` wrote")
    if check is not None:
        check(folder, data)
    try:
        fields = json.loads(data)
        found = fields["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(MANIFEST, "not a manifest") from error
    if type(found) is not int or found not in formats:
        raise BundleError(MANIFEST, _format_refusal(found))
    try:
        parts = {name: _part(described) for name, described in fields["files"].items()}
        metadata = {**fields["metadata"]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(MANIFEST, "not a manifest") from error
    for name in parts:
        _check_name(name)
        if PurePosixPath(name).parts[0] in _NOT_PARTS:
            raise BundleError(MANIFEST, f"lists {name}, which cannot be a part")
    return Bundle(folder, hashlib.sha256(data).hexdigest(), metadata, parts, data, limiter, found)


def _format_refusal(found: object) -> str:
    """Why a bundle of another format is refused, and what to do."""
    refusal = f"format {found!r:.20}, this version reads format {FORMAT}"
    if type(found) is int and found > FORMAT:
        return f"{refusal}; use a newer rankloom, or train it again"
    if found == PREVIOUS_FORMAT:
        command = "rankloom bundle convert OLD NEW"
        return f"{refusal}; train it again, or convert it with: {command}"
    return f"{refusal}; train it again"


def seal(folder: Path, metadata: Mapping[str, Any]) -> str:
    """Writes the manifest of all files in a folder; returns the bundle's digest.

    The manifest is written last and moved into place, so that a folder without one is an
    unfinished bundle. Raises BundleError for links and other files that are not regular.
    """
    parts = {name: _describe(folder / name) for name in _files_of(folder)}
    fields = {"format": FORMAT, "metadata": dict(metadata), "files": parts}
    data = json.dumps(fields, indent=1, sort_keys=True).encode()
    replace_file(folder / MANIFEST, data)
    return hashlib.sha256(data).hexdigest()


def read_signature(folder: Path) -> bytes | None:
    """Returns the signature file's bytes, None for an unsigned bundle. Raises BundleError."""
    return _read_small(folder, SIGNATURE, MAX_SIGNATURE_BYTES)


def _read_small(folder: Path, name: str, max_bytes: int) -> bytes | None:
    """Returns a regular file's bytes, None where there is no file. Raises BundleError."""
    try:
        handle = os.open(folder / name, _FLAGS)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise BundleError(name, "not a regular file")
        with open(handle, "rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(name, f"cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise BundleError(name, f"over {max_bytes} bytes")
    return data


def link_or_copy(bundle: Bundle, name: str, path: Path) -> None:
    """Creates ``path`` as a hard link to a part, or as a copy where links are not possible.

    Files of bundles never change, so that bundles can share them. Raises BundleError for a part
    that differs from the manifest, and OSError.
    """
    try:
        os.link(bundle.folder / name, path, follow_symlinks=False)
    except OSError:
        with path.open("xb") as file:
            file.writelines(bundle.pieces(name))
    else:
        bundle.check_part(name)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file atomically: to a temporary name, synced, then renamed."""
    unfinished = path.with_name(path.name + _UNFINISHED)
    unfinished.unlink(missing_ok=True)
    with unfinished.open("xb") as file:  # never through a link
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _files_of(folder: Path) -> list[str]:
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name, path in paths.items():
        _check_name(name)
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(name, "not a regular file")
    return sorted(name for name, path in paths.items() if path.is_file() and name not in _NOT_PARTS)


def _part(fields: Mapping[str, Any]) -> Part:
    sha256, num_bytes = fields["sha256"], fields["bytes"]
    if not isinstance(sha256, str) or type(num_bytes) is not int or num_bytes < 0:
        raise TypeError("a part needs a digest and a size in bytes")
    return Part(sha256, num_bytes)


def _describe(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return {"sha256": digest.hexdigest(), "bytes": file.tell()}


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and path.as_posix() == name
    if not plain or path.is_absolute() or ".." in path.parts or not path.parts:
        raise BundleError(MANIFEST, "lists a file whose name is not a plain path inside the bundle")


def _pieces(folder: Path, name: str, expected: Part) -> Iterator[bytes]:
    """Yields a file's bytes, checked for its size first; never more than that size."""
    path = folder / name
    try:
        size = path.lstat().st_size
        # The real path differs where the part or a folder above it is a symbolic link.
        linked = os.path.realpath(path) != os.path.join(os.path.realpath(folder), name)
        if linked or not path.is_file():
            raise BundleError(name, "not a regular file")
        if size != expected.num_bytes:
            raise BundleError(name, f"{size} bytes long, the manifest says {expected.num_bytes}")
        with path.open("rb") as file:
            for start in range(0, size, _PIECE_BYTES):
                yield file.read(min(_PIECE_BYTES, size - start))
    except FileNotFoundError as error:
        raise BundleError(name, "missing") from error
    except OSError as error:
        raise BundleError(name, f"cannot be read: {error.strerror}") from error
