"""Bundles on disk by their digests: whole, checked, or not there at all.

A bundle is copied part by part into a folder of its own, each part checked against the
manifest as it is read, and moved to its name when the last one is safe on the disk. A
copy that was cut short is swept away at the next start. A signature beside the manifest
is kept with it as it is: whether it is to be trusted is for others to say.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rankloom_adapters.bundle import (
    MANIFEST,
    SIGNATURE,
    Bundle,
    BundleError,
    open_bundle,
    read_signature,
)
from rankloom_adapters.rate_limit import RateLimiter

_UNFINISHED = ".unfinished-"


class StoreError(Exception):
    """The store cannot keep the bundle; the message says why. ``full``: there is no room."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full

    @classmethod
    def of(cls, folder: Path, error: OSError) -> StoreError:
        """What a failure of the disk means for the folder."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return cls(f"{folder}: {error.strerror}", full=full)


class BundleStore:
    """The bundles of one server, under a folder that is its alone."""

    def __init__(self, folder: Path, limiter: RateLimiter | None = None) -> None:
        """Makes the folder, and sweeps what a killed process left. Raises StoreError."""
        self._folder, self._limiter = folder, limiter
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left)
        except OSError as error:
            raise StoreError.of(folder, error) from error

    def put(self, source: Path) -> str:
        """Keeps a copy of a sealed bundle; gives its digest. One that is kept is not copied.

        Of one that is kept, another signature takes the place of the old one, and none leaves it.
        Raises BundleError where the source is not whole, StoreError where it cannot be kept.
        """
        bundle, signature = open_bundle(source, self._limiter), read_signature(source)
        kept = self._folder / bundle.digest
        if kept.is_dir() and signature in (None, read_signature(kept)):
            return bundle.digest
        try:
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._folder))
        except OSError as error:
            raise StoreError.of(self._folder, error) from error
        try:
            if signature is not None:
                _write(unfinished / SIGNATURE, [signature])
            if kept.is_dir():
                _move_signature(unfinished, kept)
            else:
                _copy(bundle, unfinished, self._kept_parts())
                self._move_into_place(unfinished, bundle.digest)
        except OSError as error:
            raise StoreError.of(self._folder, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return bundle.digest

    def folder_of(self, digest: str) -> Path:
        """Where a kept bundle is. Raises BundleError where it is not."""
        folder = self._folder / digest
        if not (folder / MANIFEST).is_file():
            raise BundleError(MANIFEST, f"no bundle {digest[:12]} is kept here")
        return folder

    def check(self, digest: str) -> None:
        """Reads a kept bundle through, a part at a time; nothing is repaired or removed.

        Raises BundleError for the first part that is not what was put.
        """
        bundle = open_bundle(self.folder_of(digest), self._limiter)
        if bundle.digest != digest:
            raise BundleError(MANIFEST, f"altered: kept as {digest[:12]}, is {bundle.digest[:12]}")
        bundle.check()

    @property
    def digests(self) -> frozenset[str]:
        """Of all that is kept. Raises StoreError."""
        try:
            names = os.listdir(self._folder)
        except OSError as error:
            raise StoreError.of(self._folder, error) from error
        return frozenset(name for name in names if name[0] != ".")

    def remove(self, digest: str) -> None:
        """Lets go of a bundle, whole or not at all. Raises StoreError."""
        going = self._folder / f"{_UNFINISHED}{digest}"
        try:
            (self._folder / digest).rename(going)
            shutil.rmtree(going)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError.of(self._folder, error) from error

    def _kept_parts(self) -> dict[str, tuple[Bundle, str]]:
        """Each part that is kept already, by its SHA-256: of which bundle, and its name there.

        A kept bundle whose manifest was damaged is no reason to refuse another one.
        """
        found: dict[str, tuple[Bundle, str]] = {}
        for digest in self.digests:
            with suppress(BundleError):
                kept = open_bundle(self.folder_of(digest), self._limiter)
                found |= {part.sha256: (kept, name) for name, part in kept.parts.items()}
        return found

    def _move_into_place(self, unfinished: Path, digest: str) -> None:
        try:
            unfinished.rename(self._folder / digest)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            return  # another put of the same bytes was first
        _sync(self._folder)


def _copy(bundle: Bundle, folder: Path, kept: Mapping[str, tuple[Bundle, str]]) -> None:
    """The parts, and the manifest last: without one there is no bundle.

    A part that another bundle has too is one file with two names, on the disk once.
    """
    for name, part in bundle.parts.items():
        if part.sha256 in kept and _linked(*kept[part.sha256], folder / name):
            bundle.check_part(name)
        else:
            _write(folder / name, bundle.pieces(name))
    _write(folder / MANIFEST, [bundle.manifest])
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            _sync(path)


def _move_signature(unfinished: Path, kept: Path) -> None:
    if (unfinished / SIGNATURE).is_file():
        (unfinished / SIGNATURE).replace(kept / SIGNATURE)
        _sync(kept)


def _linked(kept: Bundle, name: str, path: Path) -> bool:
    """Whether a kept part is whole, and now has this name too: a rotten one must not spread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        kept.check_part(name)
        os.link(kept.folder / name, path, follow_symlinks=False)
    except (BundleError, OSError):  # as on a file system without links
        return False
    return True


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes names in a folder durable, which syncing the files does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
