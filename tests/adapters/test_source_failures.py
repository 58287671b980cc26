"""Failures behind a URL: reported without secrets, and retried if they are temporary."""

from __future__ import annotations

import errno
import resource
import shutil
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from adapters.remote_bundle import (
    MAX_BYTES,
    PARTS,
    WEIGHTS,
    Memory,
    assert_fetched,
    into,
    memory,
    refusal,
    refused,
    source,
)
from rankloom_adapters.bundle import MANIFEST, SIGNATURE, open_bundle
from rankloom_adapters.sources import (
    SourceError,
    fetch_bundle,
    fetch_expert,
    with_retries,
    without_secrets,
)
from rankloom_adapters.store import StoreError

__all__ = ["into", "memory", "source"]


# Addresses.


@pytest.mark.parametrize("secret", ["hunter2", "hun/ter2"])
def test_an_unknown_protocol_is_refused(into: Path, secret: str) -> None:
    error = refused(f"nosuch://me:{secret}@host/x?token={secret}", into)
    assert "unknown protocol" in str(error)
    assert not error.can_pass
    assert "ter2" not in str(error)


@pytest.mark.parametrize(
    ("protocol", "install"),
    [
        ("s3", r"pip install 'rankloom\[s3\]'"),
        ("https", r"pip install 'rankloom\[http\]'"),
        ("gs", "a package that reads its protocol"),
    ],
)
def test_a_missing_package_is_named(
    into: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, install: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(SourceError, match=f"^{protocol}://bucket/x needs: {install}$") as caught:
        fetch_expert(f"{protocol}://bucket/x", into)
    assert not caught.value.can_pass


@pytest.mark.parametrize(
    "url", ["simplecache::memory://models/v1", "zip://a::file:///b.zip", "file:///a\nb"]
)
def test_chained_and_unprintable_urls_are_refused(memory: Memory, into: Path, url: str) -> None:
    assert str(refused(url, into)) == "not the URL of one folder"
    assert memory.calls == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("https://host:80/a?token=x", "https://host:80/a"),
        ("https://host/a#token", "https://host/a"),
        ("https://me:pass@host/a", "https://…@host/a"),
        ("s3://key:sec/ret@bucket/a", "s3://…@bucket/a"),
        ("ftp://me:p@ss@host/a?b", "ftp://…@host/a"),
        ("https://me:pa?ss@host/a", "https://…"),
        ("https://host/a?sent_to=me@host", "https://…"),
        ("/a/local@path?#", "/a/local@path?#"),
    ],
)
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_what_failed_below_is_not_quoted(memory: Memory, into: Path) -> None:
    def fail(*_: str) -> None:
        raise RuntimeError("GET memory://models/v1?token=hunter2")

    memory.failing = fail
    error = refused(memory.url, into)
    assert str(error) == f"{memory.url}: {MANIFEST}: RuntimeError"
    assert not error.can_pass
    assert "hunter2" not in "".join(traceback.format_exception(error))


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to write more into any one file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("left", [0, 3])
def test_a_disk_that_takes_no_more_is_not_the_sources_fault(
    memory: Memory, source: Path, into: Path, left: int
) -> None:
    with files_up_to(left), pytest.raises(StoreError, match="File too large"):
        fetch_bundle(memory.url, into, MAX_BYTES)


@pytest.mark.parametrize("asked", ["open", "info"])
def test_a_fetch_whose_place_is_gone_ends_and_leaves_nothing(
    memory: Memory, tmp_path: Path, asked: str
) -> None:
    """As after a caller that gave up: its folder is removed meanwhile."""
    into = tmp_path / "scratch" / "bundle"
    into.parent.mkdir()
    names = [name for name in PARTS if "/" in name]

    def leave(method: str, name: str) -> None:
        if (method, name) == (asked, names[-1]):
            shutil.rmtree(into.parent)

    memory.failing = leave
    with pytest.raises(StoreError, match="No such file"):
        fetch_bundle(memory.url, into, MAX_BYTES)
    assert not into.parent.exists()
    memory.failing = lambda _, __: None
    error = refusal(lambda: with_retries(lambda: fetch_bundle(memory.url, into, MAX_BYTES)))
    assert not error.can_pass
    assert not into.parent.exists()


# Temporary failures.


def never(_: float) -> None:
    pytest.fail("it waited")


class StatusError(Exception):
    """Like aiohttp's: neither an OSError nor one of our errors."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}, url='https://host/?token=hunter2'")
        self.status = status


class BotoError(Exception):
    """Like botocore's."""

    def __init__(self, status: int) -> None:
        super().__init__("Slow down")
        self.response = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}


class HTTPClientError(Exception):
    """Named as botocore's."""


class ReadTimeoutError(HTTPClientError):
    pass


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING = {
    "refused": ConnectionRefusedError(errno.ECONNREFUSED, "secret"),
    "reset": ConnectionResetError("secret"),
    "timeout": TimeoutError("secret"),
    "no route": OSError(errno.EHOSTUNREACH, "secret"),
    "503 as an OSError": OSError(errno.EBUSY, "secret"),
    "500 as an OSError": OSError(errno.EREMOTEIO, "secret"),
    "500": StatusError(500),
    "503": StatusError(503),
    "429": StatusError(429),
    "botocore's 503": BotoError(503),
    "by its name": ReadTimeoutError("secret"),
    "not found, caused by 502": caused(FileNotFoundError("secret"), StatusError(502)),
    "not found, caused by a timeout": caused(FileNotFoundError("secret"), TimeoutError()),
}
LASTING = {
    "not found": FileNotFoundError("secret"),
    "not allowed": PermissionError("secret"),
    "404": StatusError(404),
    "not found, caused by 403": caused(FileNotFoundError("secret"), StatusError(403)),
    "botocore's 403": caused(PermissionError("secret"), BotoError(403)),
    "disk full": OSError(errno.ENOSPC, "secret"),
    "invalid": OSError(errno.EINVAL, "secret"),
    "a defect": KeyError("secret"),
}


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS, SIGNATURE])
@pytest.mark.parametrize("method", ["info", "open"])
@pytest.mark.parametrize("error", PASSING.values(), ids=list(PASSING))
def test_trouble_that_passes_is_tried_again(
    memory: Memory, source: Path, into: Path, error: Exception, method: str, name: str
) -> None:
    memory.write(SIGNATURE, b"signed")
    left, waits = [error, error], list[float]()

    def fail(*call: str) -> None:
        if call == (method, name) and left:
            raise left.pop()

    memory.failing = fail
    fetch = partial(fetch_bundle, memory.url, into, MAX_BYTES)
    fetched = with_retries(fetch, sleep=waits.append, random=lambda: 1.0)
    assert open_bundle(fetched).digest == open_bundle(source).digest
    assert (fetched / SIGNATURE).read_bytes() == b"signed"
    assert waits == [0.5, 1.0]
    assert list(into.iterdir()) == [fetched]


@pytest.mark.parametrize("error", LASTING.values(), ids=list(LASTING))
def test_trouble_that_lasts_is_not_tried_again(
    memory: Memory, into: Path, error: Exception
) -> None:
    def fail(*call: str) -> None:
        if call == ("info", WEIGHTS):
            raise error

    memory.failing = fail
    found = refusal(
        lambda: with_retries(lambda: fetch_bundle(memory.url, into, MAX_BYTES), sleep=never)
    )
    assert not found.can_pass
    assert str(found).startswith(f"{memory.url}: {WEIGHTS}: ")
    assert "secret" not in str(found)


def test_a_hidden_signature_is_as_none(memory: Memory, into: Path) -> None:
    """Without permission to list a bucket, the answer for a missing file is 403."""

    def fail(_: str, name: str) -> None:
        if name == SIGNATURE:
            raise PermissionError

    memory.failing = fail
    assert not (fetch_bundle(memory.url, into, MAX_BYTES) / SIGNATURE).exists()


def test_the_status_is_told(memory: Memory, into: Path) -> None:
    def fail(*_: str) -> None:
        raise StatusError(503)

    memory.failing = fail
    assert str(refused(memory.url, into)) == f"{memory.url}: {MANIFEST}: the server answers 503"


def test_trouble_that_stays_is_given_up() -> None:
    waits, calls = list[float](), list[int]()

    def fail() -> None:
        calls.append(1)
        raise SourceError(f"number {len(calls)}", can_pass=True)

    error = refusal(lambda: with_retries(fail, attempts=7, sleep=waits.append, random=lambda: 0.5))
    assert str(error) == "number 7"
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]


def test_the_wait_is_a_random_share() -> None:
    waits, shares = list[float](), iter([0.0, 0.25, 0.75])

    def fail() -> None:
        raise SourceError("again", can_pass=True)

    refusal(lambda: with_retries(fail, sleep=waits.append, random=lambda: next(shares)))
    assert waits == [0.0, 0.25, 1.5]


def test_what_is_no_source_error_passes_through() -> None:
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        with_retries(fail, sleep=never)


# Over HTTP, if aiohttp is installed.


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without ranges, for requests with the token; first the given errors."""

    troubles: list[int]
    asked: list[str]

    def send_head(self) -> Any:  # noqa: ANN401 - as its base class has it
        self.path, _, query = self.path.partition("?")
        self.asked.append(f"{self.command} {self.path}")
        if query != "token=hunter2":
            self.send_error(403)
            return None
        if self.troubles:
            self.send_error(self.troubles.pop())
            return None
        return super().send_head()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http(source: Path) -> Iterator[tuple[str, type[Handler]]]:
    """A server of the bundle: its address and its handler."""
    handler = type("_", (Handler,), {"troubles": [], "asked": []})
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(source.parent))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{source.name}", handler
        server.shutdown()


def test_a_bundle_comes_over_http(
    http: tuple[str, type[Handler]], source: Path, into: Path
) -> None:
    url, handler = http
    assert_fetched(fetch_bundle(f"{url}?token=hunter2", into, MAX_BYTES), source)
    read = [line for line in handler.asked if line.startswith("GET")]
    # One GET for each part, one for the manifest, and one for the missing signature.
    assert len(read) == len(PARTS) + 2
    assert not any("late" in line for line in handler.asked)


def test_a_server_in_trouble_is_asked_again(
    http: tuple[str, type[Handler]], source: Path, into: Path
) -> None:
    url, handler = http
    handler.troubles.extend([503] * 4)  # each fetch requests the size twice
    fetch = partial(fetch_bundle, f"{url}?token=hunter2", into, MAX_BYTES)
    waits: list[float] = []
    assert_fetched(with_retries(fetch, sleep=waits.append), source)
    assert len(waits) == 2


def test_a_server_that_refuses_is_not_quoted(http: tuple[str, type[Handler]], into: Path) -> None:
    error = refused(f"{http[0]}?token=hunter3", into)
    assert str(error) == f"{http[0]}: {MANIFEST}: the server answers 403"
    assert not error.can_pass
    missing = refused(f"{http[0]}x?token=hunter2", into)
    assert str(missing) == f"{http[0]}x: {MANIFEST}: the server answers 404"
    assert not missing.can_pass


def test_a_server_that_is_gone_may_come_back(into: Path) -> None:
    error = refused("http://127.0.0.1:9/bundle?token=hunter2", into)
    assert error.can_pass
    assert "hunter2" not in str(error)
