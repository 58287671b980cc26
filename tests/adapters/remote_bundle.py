"""A bundle behind a URL: in memory, where every access is recorded, and as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rankloom_adapters.bundle import MANIFEST, open_bundle, seal
from rankloom_adapters.sources import SourceError, fetch_bundle

MAX_BYTES = 1 << 20
WEIGHTS = "experts/one/weights"
PARTS = {"router.json": b"{}", WEIGHTS: bytes(range(256)) * 100, "empty": b"", "a b#%?.txt": b"c"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A sealed bundle, and a file beside it that is not a part."""
    folder = tmp_path / "source"
    for name, data in PARTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    seal(folder, {})
    (folder / "late").write_bytes(b"extra")
    return folder


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "fetched"


class Memory:
    """fsspec's filesystem in memory, with a record of every read, in order."""

    url = "memory://models/v1"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = fsspec.filesystem("memory")
        self.failing: Callable[[str, str], None] = lambda _, __: None
        self.calls: list[tuple[str, str]] = []
        for method in ("info", "_open"):
            monkeypatch.setattr(MemoryFileSystem, method, self._watched(method))

    def _watched(self, method: str) -> Callable[..., Any]:
        original = getattr(MemoryFileSystem, method)

        def call(files: MemoryFileSystem, path: str, *args: object, **options: object) -> object:
            name = path.removeprefix("/models/v1/")
            self.calls.append((method.strip("_"), name))
            self.failing(method.strip("_"), name)
            return original(files, path, *args, **options)

        return call

    def write(self, name: str, data: bytes) -> None:
        self.files.pipe_file(f"/models/v1/{name}", data)
        self.calls.clear()

    def opened(self) -> list[str]:
        return [name for method, name in self.calls if method == "open"]


@pytest.fixture
def memory(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    memory = Memory(monkeypatch)
    for path in source.rglob("*"):
        if path.is_file():
            memory.write(path.relative_to(source).as_posix(), path.read_bytes())
    yield memory
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def refusal(call: Callable[[], object]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


def refused(url: str, into: Path, max_bytes: int = MAX_BYTES) -> SourceError:
    """The error; checks that nothing fetched is left."""
    error = refusal(lambda: fetch_bundle(url, into, max_bytes))
    assert not into.exists() or not list(into.iterdir())
    return error


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_fetched(fetched: Path, source: Path) -> None:
    assert contents(fetched) == {**PARTS, MANIFEST: (source / MANIFEST).read_bytes()}
    bundle = open_bundle(fetched)
    bundle.check()
    assert bundle.digest == open_bundle(source).digest
