"""Brings bundles and single experts to this machine's disk and checks them before staging."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rankloom_adapters.bundle import Bundle
from rankloom_adapters.derive import with_expert
from rankloom_adapters.expert import check_alike, check_base
from rankloom_adapters.expert_files import read_expert
from rankloom_adapters.norms import check_norms
from rankloom_adapters.rollout.states import StaleError
from rankloom_adapters.signing import SignatureError
from rankloom_adapters.sources import fetch_bundle, fetch_expert, with_retries
from rankloom_adapters.store import StoreError
from rankloom_features.wire import InvalidFieldError
from rankloom_ranker.loaded import base_digest, bundled_experts
from rankloom_server.revision_loader import RevisionLoader
from rankloom_server.state import ServerState

MAX_FILES = 1000
MAX_NAME_BYTES = 255


@dataclass(frozen=True, slots=True, eq=False)
class Staging:
    """Makes temporary folders of bundles to stage; they are removed when the block ends."""

    state: ServerState
    loader: RevisionLoader
    max_bytes: int

    @asynccontextmanager
    async def bundle(self, url: str) -> AsyncIterator[Path]:
        """A bundle's folder. Raises SourceError, BundleError or SignatureError, OSError."""
        async with self._folder() as folder:
            yield await self.loader.fetch(self._fetched_bundle, url, folder)

    @asynccontextmanager
    async def expert(self, name: str, source: str | Path, expected: int) -> AsyncIterator[Path]:
        """A bundle like the active one, with this expert. Raises ExpertError, StaleError too."""
        if self.loader.needs_signatures:
            raise SignatureError(
                "this server takes signed bundles only: put the expert into a bundle, and sign it"
            )
        async with self._folder() as folder:
            yield await self.loader.fetch(self._derived, name, source, expected, folder)

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[StagedUpload]:
        """Receives files of an upload."""
        async with self._folder() as folder:
            yield StagedUpload(folder / "upload", self.max_bytes)

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        folder = None
        try:
            folder = await self.loader.read(self.state.scratch)
            yield folder
        except OSError as error:
            raise StoreError.of(self.state.folder, error) from error
        finally:
            if folder is not None:
                await self.loader.read(_discard, folder)

    def _fetched_bundle(self, url: str, folder: Path) -> Path:
        source = with_retries(lambda: fetch_bundle(url, folder / "bundle", self.max_bytes))
        self.loader.open(source)  # refuses what is not signed before it is kept
        return source

    def _derived(self, name: str, source: str | Path, expected: int, folder: Path) -> Path:
        fetched = source
        if isinstance(source, str):
            fetched = with_retries(lambda: fetch_expert(source, folder / "expert"))
        active = self._active(expected)
        files = read_expert(name, Path(fetched))
        cache = self.loader.experts
        others = [each.load(cache) for each in bundled_experts(active, active.experts())]
        check_base(files.expert, base_digest(active))
        check_alike(files.expert, others)
        check_norms(files.expert, others)
        derived = folder / "derived"
        with_expert(active, files, derived)
        cache.put(files.digest, files.expert)  # it is loaded next
        return derived

    def _active(self, expected: int) -> Bundle:
        """The active bundle, which must be the expected one. Raises StaleError."""
        ledger = self.state.registry.ledger
        if ledger.active != expected:
            raise StaleError(ledger.active)
        digest = ledger.rollout(ledger.active).bundle_digest
        return self.loader.open(self.state.store.folder_of(digest))


def _discard(folder: Path) -> None:
    """Renamed first, so that an abandoned fetch cannot go on writing into it."""
    with suppress(OSError):
        folder = folder.rename(folder.with_name(f"{folder.name}-gone"))
    shutil.rmtree(folder, ignore_errors=True)


class StagedUpload:
    """Files of one upload, written in pieces, one file after the other, into one folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._left = max_bytes
        self._hashes: dict[str, hashlib._Hash] = {}
        self._folders: set[str] = set()
        self._last = ""
        folder.mkdir()

    @property
    def digest(self) -> str:
        """SHA-256 of the files' names and contents."""
        rows = sorted(f"{one.hexdigest()} {name}" for name, one in self._hashes.items())
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def write(self, name: str, data: bytes) -> None:
        """Appends to a file. Raises InvalidFieldError, OSError."""
        if name != self._last:
            self._begin(name)
        self._left -= len(data)
        if self._left < 0:
            raise InvalidFieldError("chunk.data", "the files are larger than the server takes")
        with (self.folder / name).open("ab") as file:
            file.write(data)
        self._hashes[name].update(data)

    def _begin(self, name: str) -> None:
        path = PurePosixPath(name)
        plain = path.parts and path.as_posix() == name and not path.is_absolute()
        is_long = len(name.encode()) > MAX_NAME_BYTES
        if not plain or ".." in path.parts or not name.isprintable() or is_long:
            raise InvalidFieldError("chunk.name", "must be a plain path within the folder")
        parents = [parent.as_posix() for parent in path.parents]
        if name in self._folders or any(parent in self._hashes for parent in parents):
            raise InvalidFieldError("chunk.name", "is a file and a folder")
        if name in self._hashes or len(self._hashes) >= MAX_FILES:
            raise InvalidFieldError("chunk.name", "a file came twice, or too many did")
        self._hashes[name] = hashlib.sha256()
        self._folders.update(parents)
        self._last = name
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
