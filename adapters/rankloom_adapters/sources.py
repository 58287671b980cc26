"""Bundles and experts from a local path, or from any URL that fsspec knows.

A local path is used where it is. From a URL the files that are named beforehand are fetched
into a new folder, and no others; each is read once, and not before its size is known. What
was fetched is then read as any folder is: what it holds is not trusted for having come whole.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import fsspec

from rankloom_adapters.bundle import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
    Bundle,
    BundleError,
    open_bundle,
)
from rankloom_adapters.expert import CONFIG_FILE, MAX_CONFIG_BYTES, WEIGHTS_FILE
from rankloom_adapters.expert_files import MAX_WEIGHTS_BYTES
from rankloom_adapters.store import StoreError

_T = TypeVar("_T")

_EXPERT_FILES: Mapping[str, int] = {CONFIG_FILE: MAX_CONFIG_BYTES, WEIGHTS_FILE: MAX_WEIGHTS_BYTES}
_HTTP = ("http", "https")
_PACKAGES: Mapping[str, str] = {
    **dict.fromkeys(_HTTP, "pip install 'rankloom[http]'"),
    **dict.fromkeys(("s3", "s3a"), "pip install 'rankloom[s3]'"),
}
_CHUNK_BYTES = 1 << 20
_SILENCE_S = 30.0
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0

# What can pass, by the names of the classes: their packages need not be installed. The first
# three are also Python's own; then urllib3's, botocore's, and aiohttp's two.
_PASSING = frozenset(
    {
        *("ConnectionError", "TimeoutError", "gaierror"),
        *("IncompleteRead", "HTTPClientError", "ClientConnectionError", "ClientPayloadError"),
    }
)
_PASSING_CODES = frozenset(
    {
        *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EREMOTEIO, errno.ESTALE),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
_PASSING_STATUSES = frozenset({408, 425, 429})


class SourceError(Exception):
    """Nothing usable came from a source. ``can_pass``: trying again may help."""

    def __init__(self, message: str, can_pass: bool) -> None:
        super().__init__(message)
        self.can_pass = can_pass


class _MissingError(SourceError):
    """There is no such file, or nobody says that there is."""


def fetch_bundle(url: str, folder: Path, max_bytes: int) -> Path:
    """The folder of a bundle: a local one itself, or a new one in ``folder`` with what came.

    ``max_bytes``: the parts of the bundle, all together. Raises SourceError.
    """
    shown = without_secrets(url)
    if "://" not in url:
        _open_bundle(shown, Path(url), max_bytes)
        return Path(url)
    remote = _Remote(url)
    with _new_folder(folder) as place:
        remote.fetch(MANIFEST, remote.size_of(MANIFEST, MAX_MANIFEST_BYTES), place)
        _fetch_parts(remote, _open_bundle(shown, place, max_bytes))
        try:
            num_bytes = remote.size_of(SIGNATURE, MAX_SIGNATURE_BYTES)
        except _MissingError:
            return place  # not signed, which whoever asks for signatures will refuse
        remote.fetch(SIGNATURE, num_bytes, place)
    return place


def fetch_expert(url: str, folder: Path) -> Path:
    """The folder of an expert: a local one itself, or a new one in ``folder`` with what came.

    Raises SourceError.
    """
    if "://" not in url:
        return Path(url)
    remote = _Remote(url)
    with _new_folder(folder) as place:
        sizes = {name: remote.size_of(name, most) for name, most in _EXPERT_FILES.items()}
        for name, num_bytes in sizes.items():
            remote.fetch(name, num_bytes, place)
    return place


def with_retries(
    call: Callable[[], _T],
    attempts: int = 4,
    *,
    sleep: Callable[[float], object] = time.sleep,
    random: Callable[[], float] = random.random,
) -> _T:
    """What the call gives, tried again where the cause can pass. Raises SourceError.

    Between attempts it waits a random share of a time that doubles, so that many who were
    refused together do not come back together.
    """
    for attempt in range(attempts - 1):
        try:
            return call()
        except SourceError as error:
            if not error.can_pass:
                raise
        sleep(random() * min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt))
    return call()


def without_secrets(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    secret, at, shown = rest.rpartition("@")
    if any(mark in secret for mark in "?#"):  # the "@" may be one of a query
        return f"{scheme}://…"
    return f"{scheme}://{at and '…@'}{shown.partition('?')[0].partition('#')[0]}"


class _Remote:
    """A folder behind a URL. Whatever fails there leaves it as SourceError."""

    def __init__(self, url: str) -> None:
        self._shown = without_secrets(url)
        self._is_http = url.partition("://")[0] in _HTTP
        self._files, path = _filesystem(url, self._shown)
        # A query belongs to each file's address, behind its name.
        place = path.partition("#")[0].partition("?") if self._is_http else (path, "", "")
        self._folder, self._query = place[0].rstrip("/"), place[1] + place[2]

    def size_of(self, name: str, max_bytes: int) -> int:
        """How large a file is. Raises SourceError where it is larger than that."""
        num_bytes = self._size(name)
        if num_bytes > max_bytes:
            raise self.refusal(name, f"{num_bytes} bytes; {max_bytes} are allowed")
        return num_bytes

    def check_size(self, name: str, num_bytes: int) -> None:
        """Refuses a file that is not as long as this. Raises SourceError."""
        found = self._size(name)
        if found != num_bytes:
            raise self.refusal(name, f"{found} bytes long, the manifest says {num_bytes}")

    def fetch(self, name: str, num_bytes: int, folder: Path) -> str:
        """Copies a file of that size into a folder; gives its SHA-256.

        Raises SourceError, or StoreError where this machine's disk is what fails.
        """
        to = folder / name
        with _told(self._where(name)):
            with _kept(folder):
                _make_parents(folder, name)
                file = to.open("xb", buffering=0)
            with file, self._open(name, num_bytes) as source:
                num_read, digest = _copy(source, file, num_bytes)
                grown = bool(source.read(1))
        if num_read < num_bytes:
            reason = f"it ended after {num_read} of {num_bytes} bytes"
            raise SourceError(f"{self._where(name)}: {reason}", can_pass=True)
        if grown:
            raise self.refusal(name, "it grew while it was read")
        return digest

    def refusal(self, name: str, reason: str) -> SourceError:
        """What to raise for a file that is not as it should be."""
        return SourceError(f"{self._where(name)}: {reason}", can_pass=False)

    def _size(self, name: str) -> int:
        with _told(self._where(name)):
            info = self._files.info(self._address(name))
        if info.get("type") != "file" or info.get("islink"):
            raise self.refusal(name, "not a regular file")
        num_bytes = info.get("size")
        if not isinstance(num_bytes, int) or num_bytes < 0:
            raise self.refusal(name, "its size is not told")
        return num_bytes

    def _open(self, name: str, num_bytes: int) -> BinaryIO:
        # Over HTTP as one stream: not every server gives ranges.
        options = {"block_size": 0, "size": num_bytes} if self._is_http else {}
        opened: BinaryIO = self._files.open(self._address(name), "rb", **options)
        return opened

    def _address(self, name: str) -> str:
        return f"{self._folder}/{quote(name) if self._is_http else name}{self._query}"

    def _where(self, name: str) -> str:
        return f"{self._shown}: {name}"


def _copy(source: BinaryIO, file: FileIO, num_bytes: int) -> tuple[int, str]:
    """At most that many bytes; how many there were, and their SHA-256."""
    digest, left = hashlib.sha256(), num_bytes
    while left and (data := source.read(min(left, _CHUNK_BYTES))):
        digest.update(data)
        _check_wanted(file)
        _write(file, data)
        left -= len(data)
    return num_bytes - left, digest.hexdigest()


def _make_parents(folder: Path, name: str) -> None:
    """The folders above a file of that name, but never ``folder`` itself."""
    for parent in reversed(PurePosixPath(name).parents[:-1]):
        (folder / parent).mkdir(exist_ok=True)


def _check_wanted(file: FileIO) -> None:
    """Raises StoreError where the file has been removed: nobody waits for it any more."""
    with _kept(Path(str(file.name)).parent):
        if not os.fstat(file.fileno()).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _write(file: FileIO, data: bytes) -> None:
    """All of it: a file without a buffer may take less at a time."""
    left = memoryview(data)
    while left:
        with _kept(Path(str(file.name)).parent):
            left = left[file.write(left) :]


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """What fails in the block is this machine's disk, not the source."""
    try:
        yield
    except OSError as error:
        raise StoreError.of(folder, error) from error


def _open_bundle(shown: str, folder: Path, max_bytes: int) -> Bundle:
    try:
        bundle = open_bundle(folder)
    except BundleError as error:
        raise SourceError(f"{shown}: {error}", can_pass=False) from error
    num_bytes = sum(part.num_bytes for part in bundle.parts.values())
    if num_bytes > max_bytes:
        raise SourceError(f"{shown}: {num_bytes} bytes; {max_bytes} are allowed", can_pass=False)
    return bundle


def _fetch_parts(remote: _Remote, bundle: Bundle) -> None:
    for name, part in bundle.parts.items():
        remote.check_size(name, part.num_bytes)
    for name, part in bundle.parts.items():
        if remote.fetch(name, part.num_bytes, bundle.folder) != part.sha256:
            raise remote.refusal(name, "altered: its SHA-256 is not the manifest's")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A new folder in that one, which is gone again where the work in it fails."""
    try:
        folder.mkdir(exist_ok=True)  # without parents: whose place is gone has been left alone
        place = Path(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}", can_pass=False) from error
    try:
        yield place
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _filesystem(url: str, shown: str) -> tuple[Any, str]:
    """A filesystem of its own, whose cached listings are no older than it, and a path there."""
    protocol = url.partition("://")[0]
    if not url.isprintable() or "::" in url:  # fsspec reads a chain of protocols there
        raise SourceError("not the URL of one folder", can_pass=False)
    with _told(shown):
        try:
            options = _http_options() if protocol in _HTTP else {}
            files, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        except ImportError:
            needs = _PACKAGES.get(protocol, "a package that reads its protocol")
            raise SourceError(f"{shown} needs: {needs}", can_pass=False) from None
        except ValueError:
            raise SourceError(f"{shown}: not a protocol that is known", can_pass=False) from None
    return files, path


def _http_options() -> dict[str, Any]:
    """Limits on silence, in place of one on the whole of a file, however large it is."""
    timeout = importlib.import_module("aiohttp").ClientTimeout
    limits = timeout(total=None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S)
    return {"client_kwargs": {"timeout": limits}}


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Says in our words what went wrong below."""
    try:
        yield
    except (SourceError, StoreError):
        raise
    except Exception as error:
        # Without the cause: its text may quote the URL with its secrets.
        raise _as_source_error(where, error) from None


def _as_source_error(where: str, error: Exception) -> SourceError:
    """What a filesystem raised; the cause may be further down than it says."""
    causes = _causes(error)
    statuses = [status for status in map(_status, causes) if status is not None]
    passing = [cause for cause in causes if _is_passing(cause)]
    if statuses:
        reason = f"the server answers {statuses[0]}"
    else:
        reason = _reason(passing[0] if passing else error)
    if not passing and isinstance(error, FileNotFoundError | PermissionError):
        # Who may not list a bucket is told the same of a missing file as of a hidden one.
        return _MissingError(f"{where}: {reason}", can_pass=False)
    return SourceError(f"{where}: {reason}", can_pass=bool(passing))


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it came from."""
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        hidden = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or hidden
    return causes


def _is_passing(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _PASSING_STATUSES
    if _PASSING & {each.__name__ for each in type(error).__mro__}:
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_CODES


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp or botocore bears."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    found = getattr(error, "status", None) if status is None else status
    return found if isinstance(found, int) else None


def _reason(error: BaseException) -> str:
    """Without the error's own text, which may hold what nobody should read."""
    if isinstance(error, FileNotFoundError):
        return "not found"
    code = error.errno if isinstance(error, OSError) else None
    return os.strerror(code) if code is not None and code > 0 else type(error).__name__
