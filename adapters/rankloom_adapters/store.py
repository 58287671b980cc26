"""Bundles on disk by their digests: whole, checked, or not there at all.

A bundle is copied part by part into a folder of its own, each part checked against the
manifest as it is read, and moved to its name when the last one is safe on the disk. A
copy that was cut short is swept away at the next start.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from rankloom_adapters.bundle import MANIFEST, Bundle, BundleError, open_bundle

_UNFINISHED = ".unfinished-"


class StoreError(Exception):
    """The store cannot keep the bundle; the message says why. ``full``: there is no room."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class BundleStore:
    """The bundles of one server, under a folder that is its alone."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder, and sweeps what a killed process left. Raises StoreError."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left)
        except OSError as error:
            raise _store_error(folder, error) from error

    def put(self, source: Path) -> str:
        """Keeps a copy of a sealed bundle; gives its digest. One that is kept is not copied.

        Raises BundleError where the source is not whole, StoreError where it cannot be kept.
        """
        bundle = open_bundle(source)
        if (self._folder / bundle.digest).is_dir():
            return bundle.digest
        try:
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._folder))
        except OSError as error:
            raise _store_error(self._folder, error) from error
        try:
            _copy(bundle, unfinished)
            self._move_into_place(unfinished, bundle.digest)
        except OSError as error:
            raise _store_error(self._folder, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return bundle.digest

    def folder_of(self, digest: str) -> Path:
        """Where a kept bundle is. Raises BundleError where it is not."""
        folder = self._folder / digest
        if not (folder / MANIFEST).is_file():
            raise BundleError(MANIFEST, f"no bundle {digest[:12]} is kept here")
        return folder

    @property
    def digests(self) -> frozenset[str]:
        """Of all that is kept."""
        return frozenset(path.name for path in self._folder.iterdir() if path.name[0] != ".")

    def remove(self, digest: str) -> None:
        """Lets go of a bundle, whole or not at all. Raises StoreError."""
        going = self._folder / f"{_UNFINISHED}{digest}"
        try:
            (self._folder / digest).rename(going)
            shutil.rmtree(going)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _store_error(self._folder, error) from error

    def _move_into_place(self, unfinished: Path, digest: str) -> None:
        try:
            unfinished.rename(self._folder / digest)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            return  # another put of the same bytes was first
        _sync(self._folder)


def _copy(bundle: Bundle, folder: Path) -> None:
    """The parts, and the manifest last: without one there is no bundle."""
    for name in bundle.parts:
        _write(folder / name, bundle.read(name))
    _write(folder / MANIFEST, bundle.manifest)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            _sync(path)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes names in a folder durable, which syncing the files does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _store_error(folder: Path, error: OSError) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreError(f"{folder}: {error.strerror}", full=full)
