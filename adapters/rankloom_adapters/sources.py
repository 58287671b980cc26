"""Fetches bundles and experts from a URL that fsspec can read; a local path is used in place.

Only the files that a bundle's manifest or an expert's format names are fetched, into a new
folder, each once and after a check of its size. The result is validated like any other folder.
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
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.expert_files import MAX_WEIGHTS_BYTES
from rankloom_adapters.lora_config import MAX_CONFIG_BYTES
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

# Temporary errors, by class name, because their packages may not be installed. The first three
# are also Python's own; then one of urllib3, one of botocore, and two of aiohttp.
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
    """A source gave nothing usable. ``can_pass``: trying again may help."""

    def __init__(self, message: str, can_pass: bool) -> None:
        super().__init__(message)
        self.can_pass = can_pass


class _MissingError(SourceError):
    """The file does not exist, or we are not allowed to see it."""


def fetch_bundle(url: str, folder: Path, max_bytes: int) -> Path:
    """Returns a bundle's folder: a local path itself, or a new one inside ``folder``.

    ``max_bytes``: limit of all parts together. Raises SourceError.
    """
    shown = without_secrets(url)
    if "://" not in url:
        _open_bundle(shown, Path(url), max_bytes)
        return Path(url)
    remote = _Remote(url)
    with _new_folder(folder) as fetched:
        remote.fetch(MANIFEST, remote.size_of(MANIFEST, MAX_MANIFEST_BYTES), fetched)
        _fetch_parts(remote, _open_bundle(shown, fetched, max_bytes))
        try:
            num_bytes = remote.size_of(SIGNATURE, MAX_SIGNATURE_BYTES)
        except _MissingError:
            return fetched  # not signed; refused later where signatures are required
        remote.fetch(SIGNATURE, num_bytes, fetched)
    return fetched


def fetch_expert(url: str, folder: Path) -> Path:
    """Returns an expert's folder: a local path itself, or a new one inside ``folder``.

    Raises SourceError.
    """
    if "://" not in url:
        return Path(url)
    remote = _Remote(url)
    with _new_folder(folder) as fetched:
        sizes = {name: remote.size_of(name, most) for name, most in _EXPERT_FILES.items()}
        for name, num_bytes in sizes.items():
            remote.fetch(name, num_bytes, fetched)
    return fetched


def with_retries(
    call: Callable[[], _T],
    attempts: int = 4,
    *,
    sleep: Callable[[float], object] = time.sleep,
    random: Callable[[], float] = random.random,
) -> _T:
    """Returns the call's result, with retries after temporary errors. Raises SourceError.

    Between attempts it sleeps a random share of a time that doubles, so that many callers do
    not come back at the same moment.
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
    """The URL for messages: without user, password, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    secret, at, shown = rest.rpartition("@")
    if any(mark in secret for mark in "?#"):  # the "@" may belong to a query
        return f"{scheme}://…"
    return f"{scheme}://{at and '…@'}{shown.partition('?')[0].partition('#')[0]}"


class _Remote:
    """A folder behind a URL; all its errors are raised as SourceError."""

    def __init__(self, url: str) -> None:
        self._shown = without_secrets(url)
        self._is_http = url.partition("://")[0] in _HTTP
        self._files, path = _filesystem(url, self._shown)
        # A query belongs to the address of each file, after its name.
        parts = path.partition("#")[0].partition("?") if self._is_http else (path, "", "")
        self._folder, self._query = parts[0].rstrip("/"), parts[1] + parts[2]

    def size_of(self, name: str, max_bytes: int) -> int:
        """The file's size. Raises SourceError where it is above the limit."""
        num_bytes = self._size(name)
        if num_bytes > max_bytes:
            raise self.refusal(name, f"{num_bytes} bytes; {max_bytes} are allowed")
        return num_bytes

    def check_size(self, name: str, num_bytes: int) -> None:
        """Raises SourceError for a file of another size."""
        found = self._size(name)
        if found != num_bytes:
            raise self.refusal(name, f"{found} bytes long, the manifest says {num_bytes}")

    def fetch(self, name: str, num_bytes: int, folder: Path) -> str:
        """Copies a file of that size into a folder; returns its SHA-256.

        Raises SourceError, or StoreError where the local disk fails.
        """
        to = folder / name
        with _source_errors(self._where(name)):
            with _disk_errors(folder):
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
        """The error for a file that is wrong, which no retry can repair."""
        return SourceError(f"{self._where(name)}: {reason}", can_pass=False)

    def _size(self, name: str) -> int:
        with _source_errors(self._where(name)):
            info = self._files.info(self._address(name))
        if info.get("type") != "file" or info.get("islink"):
            raise self.refusal(name, "not a regular file")
        num_bytes = info.get("size")
        if not isinstance(num_bytes, int) or num_bytes < 0:
            raise self.refusal(name, "the server does not report its size")
        return num_bytes

    def _open(self, name: str, num_bytes: int) -> BinaryIO:
        # Over HTTP as one stream: some servers do not support ranges.
        options = {"block_size": 0, "size": num_bytes} if self._is_http else {}
        opened: BinaryIO = self._files.open(self._address(name), "rb", **options)
        return opened

    def _address(self, name: str) -> str:
        return f"{self._folder}/{quote(name) if self._is_http else name}{self._query}"

    def _where(self, name: str) -> str:
        return f"{self._shown}: {name}"


def _copy(source: BinaryIO, file: FileIO, num_bytes: int) -> tuple[int, str]:
    """Copies at most that many bytes; returns their number and their SHA-256."""
    digest, left = hashlib.sha256(), num_bytes
    while left and (data := source.read(min(left, _CHUNK_BYTES))):
        digest.update(data)
        _check_wanted(file)
        _write(file, data)
        left -= len(data)
    return num_bytes - left, digest.hexdigest()


def _make_parents(folder: Path, name: str) -> None:
    """Creates the folders between ``folder``, which must exist, and the file."""
    for parent in reversed(PurePosixPath(name).parents[:-1]):
        (folder / parent).mkdir(exist_ok=True)


def _check_wanted(file: FileIO) -> None:
    """Raises StoreError where the file was removed: the caller has given up."""
    with _disk_errors(Path(str(file.name)).parent):
        if not os.fstat(file.fileno()).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _write(file: FileIO, data: bytes) -> None:
    """Writes all data; one write to an unbuffered file may take less."""
    left = memoryview(data)
    while left:
        with _disk_errors(Path(str(file.name)).parent):
            left = left[file.write(left) :]


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError into StoreError: it comes from the local disk, not from the source."""
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
    """Creates a folder inside another one, and removes it again after an error."""
    try:
        folder.mkdir(exist_ok=True)  # not its parents: without them the caller has given up
        created = Path(tempfile.mkdtemp(dir=folder))
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}", can_pass=False) from error
    try:
        yield created
    except BaseException:
        shutil.rmtree(created, ignore_errors=True)
        raise


def _filesystem(url: str, shown: str) -> tuple[Any, str]:
    """A new filesystem, which has no cached listings yet, and the path in it."""
    protocol = url.partition("://")[0]
    if not url.isprintable() or "::" in url:  # fsspec would read "::" as a chain of protocols
        raise SourceError("not the URL of one folder", can_pass=False)
    with _source_errors(shown):
        try:
            options = _http_options() if protocol in _HTTP else {}
            files, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        except ImportError:
            needs = _PACKAGES.get(protocol, "a package that reads its protocol")
            raise SourceError(f"{shown} needs: {needs}", can_pass=False) from None
        except ValueError:
            raise SourceError(f"{shown}: unknown protocol", can_pass=False) from None
    return files, path


def _http_options() -> dict[str, Any]:
    """Limits the time without data instead of the whole time, which depends on the size."""
    timeout = importlib.import_module("aiohttp").ClientTimeout
    limits = timeout(total=None, sock_connect=_SILENCE_S, sock_read=_SILENCE_S)
    return {"client_kwargs": {"timeout": limits}}


@contextmanager
def _source_errors(where: str) -> Iterator[None]:
    """Turns all errors of the block into SourceError."""
    try:
        yield
    except (SourceError, StoreError):
        raise
    except Exception as error:
        # Without the cause: its text may contain the URL with its secrets.
        raise _as_source_error(where, error) from None


def _as_source_error(where: str, error: Exception) -> SourceError:
    """Describes a filesystem's error, which may wrap the real cause."""
    causes = _causes(error)
    statuses = [status for status in map(_status, causes) if status is not None]
    passing = [cause for cause in causes if _is_passing(cause)]
    if statuses:
        reason = f"the server answers {statuses[0]}"
    else:
        reason = _reason(passing[0] if passing else error)
    if not passing and isinstance(error, FileNotFoundError | PermissionError):
        # Without permission to list a bucket, a missing file is reported as a forbidden one.
        return _MissingError(f"{where}: {reason}", can_pass=False)
    return SourceError(f"{where}: {reason}", can_pass=bool(passing))


def _causes(error: BaseException) -> list[BaseException]:
    """The error and its chain of causes."""
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
    """The HTTP status of an error of aiohttp or botocore."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    found = getattr(error, "status", None) if status is None else status
    return found if isinstance(found, int) else None


def _reason(error: BaseException) -> str:
    """A description without the error's own text, which may contain secrets."""
    if isinstance(error, FileNotFoundError):
        return "not found"
    code = error.errno if isinstance(error, OSError) else None
    return os.strerror(code) if code is not None and code > 0 else type(error).__name__
