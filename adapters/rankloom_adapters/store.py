"""Stores bundles on disk by digest: each is either complete and checked, or absent.

A bundle is copied into a temporary folder, where each part is checked against the manifest.
The folder is renamed once all is synced. The next start removes unfinished copies. A signature
is stored without verification: others decide about trust.
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
_UNKNOWN = ".unknown-"  # marks a bundle that no ledger names yet


class StoreError(Exception):
    """The store failed; the message says why. ``full``: the disk is full."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full

    @classmethod
    def of(cls, folder: Path, error: OSError) -> StoreError:
        """The error for a failure of the disk in that folder."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return cls(f"{folder}: {error.strerror}", full=full)


class BundleStore:
    """The bundles of one server, in a folder that no other process uses."""

    def __init__(self, folder: Path, limiter: RateLimiter | None = None) -> None:
        """Creates the folder and removes unfinished copies. Raises StoreError."""
        self._folder, self._limiter = folder, limiter
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left)
            for digest in self.unknown - self.digests:
                self.known(digest)
        except OSError as error:
            raise StoreError.of(folder, error) from error

    @staticmethod
    def seen(folder: Path) -> frozenset[str]:
        """Digests of bundles that a ledger has named, in a store that is not opened."""
        names = set(os.listdir(folder)) if folder.is_dir() else set[str]()
        return frozenset(
            name for name in names if name[0] != "." and f"{_UNKNOWN}{name}" not in names
        )

    def put(self, source: Path) -> str:
        """Stores a copy of a sealed bundle; returns its digest.

        A bundle that is stored already is not copied again, but a new signature replaces the old
        one. A new bundle is marked as unknown until ``known`` is called. Raises BundleError for a
        damaged source, StoreError where it cannot be stored.
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
                (self._folder / f"{_UNKNOWN}{bundle.digest}").touch()
                self._move_into_place(unfinished, bundle.digest)
        except OSError as error:
            raise StoreError.of(self._folder, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return bundle.digest

    def folder_of(self, digest: str) -> Path:
        """The folder of a stored bundle. Raises BundleError for an unknown one."""
        folder = self._folder / digest
        if not (folder / MANIFEST).is_file():
            raise BundleError(MANIFEST, f"bundle {digest[:12]} is not in the store")
        return folder

    def check(self, digest: str) -> None:
        """Checks every part of a stored bundle; repairs and removes nothing.

        Raises BundleError for the first damaged part.
        """
        bundle = open_bundle(self.folder_of(digest), self._limiter)
        if bundle.digest != digest:
            raise BundleError(
                MANIFEST, f"altered: stored as {digest[:12]}, is {bundle.digest[:12]}"
            )
        bundle.check()

    @property
    def digests(self) -> frozenset[str]:
        """Digests of all stored bundles. Raises StoreError."""
        try:
            names = os.listdir(self._folder)
        except OSError as error:
            raise StoreError.of(self._folder, error) from error
        return frozenset(name for name in names if name[0] != ".")

    @property
    def unknown(self) -> frozenset[str]:
        """Digests that were never made known: their staging was cut short. Raises StoreError."""
        try:
            names = os.listdir(self._folder)
        except OSError as error:
            raise StoreError.of(self._folder, error) from error
        return frozenset(name[len(_UNKNOWN) :] for name in names if name.startswith(_UNKNOWN))

    def known(self, digest: str) -> None:
        """A ledger names the bundle now. Raises StoreError."""
        try:
            (self._folder / f"{_UNKNOWN}{digest}").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError.of(self._folder, error) from error

    def remove(self, digest: str) -> None:
        """Removes a bundle, by a rename first, so that none is left in part. Raises StoreError."""
        going = self._folder / f"{_UNFINISHED}{digest}"
        try:
            (self._folder / digest).rename(going)
            shutil.rmtree(going)
            self.known(digest)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError.of(self._folder, error) from error

    def _kept_parts(self) -> dict[str, tuple[Bundle, str]]:
        """Each stored part by its SHA-256: its bundle, and its name there.

        Skips stored bundles with a damaged manifest.
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
            return  # another call stored the same bundle first
        _sync(self._folder)


def _copy(bundle: Bundle, folder: Path, kept: Mapping[str, tuple[Bundle, str]]) -> None:
    """Copies the parts, and the manifest last: without one there is no bundle.

    A part that another stored bundle has is linked, so that the disk holds it once.
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
    """Links a stored part to a new name; False where it is damaged, or links are not possible."""
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
    """Syncs a folder: makes the names in it durable, which syncing its files does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
