"""Only listed files are fetched, completely and within their limits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapters.adapter_files import AdapterFiles
from adapters.remote_bundle import (
    MAX_BYTES,
    PARTS,
    WEIGHTS,
    Memory,
    assert_fetched,
    contents,
    into,
    memory,
    refusal,
    refused,
    source,
)
from rankloom_adapters.bundle import (
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
)
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_adapters.expert_files import MAX_WEIGHTS_BYTES, read_expert
from rankloom_adapters.lora_config import MAX_CONFIG_BYTES
from rankloom_adapters.sources import (
    fetch_bundle,
    fetch_expert,
)
from rankloom_adapters.store import BundleStore

__all__ = ["into", "memory", "source"]


def manifest(files: dict[str, tuple[bytes, int]]) -> bytes:
    described = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": num_bytes}
        for name, (data, num_bytes) in files.items()
    }
    return json.dumps({"format": FORMAT, "metadata": {}, "files": described}).encode()


# Good bundles.


def test_a_local_bundle_is_used_where_it_is(source: Path, into: Path) -> None:
    assert fetch_bundle(str(source), into, MAX_BYTES) == source
    assert not into.exists()


def test_a_bundle_comes_from_memory(memory: Memory, source: Path, into: Path) -> None:
    fetched = fetch_bundle(memory.url + "/", into, MAX_BYTES)
    assert fetched.parent == into
    assert_fetched(fetched, source)


def test_a_bundle_comes_from_a_file_url(source: Path, into: Path) -> None:
    assert_fetched(fetch_bundle(f"file://{source}", into, MAX_BYTES), source)


def test_each_fetch_has_a_folder_of_its_own(memory: Memory, source: Path, into: Path) -> None:
    folders = {fetch_bundle(memory.url, into, MAX_BYTES) for _ in range(3)}
    assert len(folders) == 3
    for fetched in folders:
        assert_fetched(fetched, source)


def test_what_was_fetched_can_be_kept(memory: Memory, into: Path, tmp_path: Path) -> None:
    memory.write(SIGNATURE, b"signed")
    store = BundleStore(tmp_path / "kept")
    digest = store.put(fetch_bundle(memory.url, into, MAX_BYTES))
    assert (store.folder_of(digest) / SIGNATURE).read_bytes() == b"signed"


def test_the_listed_files_are_read_once_and_no_others(memory: Memory, into: Path) -> None:
    fetch_bundle(memory.url, into, MAX_BYTES)
    assert memory.opened()[0] == MANIFEST
    assert sorted(memory.opened()) == sorted([MANIFEST, *PARTS])
    assert "late" not in {name for _, name in memory.calls}


def test_no_part_is_read_before_all_sizes_are_known(memory: Memory, into: Path) -> None:
    fetch_bundle(memory.url, into, MAX_BYTES)
    assert memory.calls[:2] == [("info", MANIFEST), ("open", MANIFEST)]
    rest = [method for method, name in memory.calls[2:] if name != SIGNATURE]
    assert rest == ["info"] * len(PARTS) + ["open"] * len(PARTS)


# Bad bundles.


@pytest.mark.parametrize("data", [PARTS[WEIGHTS][:-1], PARTS[WEIGHTS] + b"\0", b""])
def test_a_part_of_another_size_is_refused_unread(memory: Memory, into: Path, data: bytes) -> None:
    memory.write(WEIGHTS, data)
    error = refused(memory.url, into)
    assert str(error) == (
        f"{memory.url}: {WEIGHTS}: {len(data)} bytes long, the manifest says 25600"
    )
    assert not error.can_pass
    assert memory.opened() == [MANIFEST]


def test_an_altered_part_is_refused(memory: Memory, into: Path) -> None:
    memory.write(WEIGHTS, PARTS[WEIGHTS][:-1] + b"\0")
    error = refused(memory.url, into)
    assert f"{WEIGHTS}: altered" in str(error)
    assert not error.can_pass


@pytest.mark.parametrize(
    ("data", "reason", "can_pass"),
    [
        (PARTS[WEIGHTS][:-7], "it ended after 25593 of 25600 bytes", True),
        (PARTS[WEIGHTS] + b"\0", "it grew while it was read", False),
    ],
    ids=["truncated", "grown"],
)
def test_a_part_that_changes_as_it_is_read_is_refused(
    memory: Memory, into: Path, data: bytes, reason: str, can_pass: bool
) -> None:
    def change(method: str, name: str) -> None:
        if (method, name) == ("open", WEIGHTS):
            memory.failing = lambda *_: None
            memory.write(WEIGHTS, data)

    memory.failing = change
    error = refused(memory.url, into)
    assert str(error) == f"{memory.url}: {WEIGHTS}: {reason}"
    assert error.can_pass is can_pass


@pytest.mark.parametrize("name", ["router.json", MANIFEST])
def test_a_missing_file_is_named(memory: Memory, into: Path, name: str) -> None:
    memory.files.rm_file(f"/models/v1/{name}")
    error = refused(memory.url, into)
    assert str(error) == f"{memory.url}: {name}: not found"
    assert not error.can_pass


def test_a_bundle_that_is_too_large_is_refused_before_it_is_read(
    memory: Memory, into: Path
) -> None:
    num_bytes = sum(map(len, PARTS.values()))
    fetch_bundle(memory.url, into, num_bytes)
    for path in into.iterdir():
        path.rename(into.parent / path.name)
    memory.calls.clear()
    error = refused(memory.url, into, num_bytes - 1)
    assert str(error) == f"{memory.url}: {num_bytes} bytes; {num_bytes - 1} are allowed"
    assert [name for _, name in memory.calls] == [MANIFEST, MANIFEST]


def test_a_local_bundle_is_held_to_the_same_bound(source: Path, into: Path) -> None:
    num_bytes = sum(map(len, PARTS.values()))
    assert fetch_bundle(str(source), into, num_bytes) == source
    assert "are allowed" in str(refused(str(source), into, num_bytes - 1))


@pytest.mark.parametrize(
    ("name", "most"), [(MANIFEST, MAX_MANIFEST_BYTES), (SIGNATURE, MAX_SIGNATURE_BYTES)]
)
def test_an_oversize_file_is_refused_unread(
    memory: Memory, into: Path, name: str, most: int
) -> None:
    memory.write(name, b" " * (most + 1))
    assert str(refused(memory.url, into)).endswith(f"{name}: {most + 1} bytes; {most} are allowed")
    assert name not in memory.opened()


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/etc/hostname", "a\\b", "", MANIFEST, SIGNATURE]
)
def test_a_name_outside_the_bundle_is_refused(memory: Memory, into: Path, name: str) -> None:
    memory.write(MANIFEST, manifest({name: (b"x", 1)}))
    error = refused(memory.url, into)
    assert "bundle: manifest.json: " in str(error)
    assert not error.can_pass
    assert memory.opened() == [MANIFEST]


def test_a_size_below_nothing_makes_no_room_for_others(memory: Memory, into: Path) -> None:
    memory.write(MANIFEST, manifest({"a": (b"", -(1 << 40)), WEIGHTS: (PARTS[WEIGHTS], 25600)}))
    assert "not a manifest" in str(refused(memory.url, into, 1))
    assert memory.opened() == [MANIFEST]


def test_a_file_that_is_also_a_folder_is_refused(memory: Memory, into: Path) -> None:
    memory.write("one", b"1")
    memory.write(MANIFEST, manifest({"one": (b"1", 1), "one/two": (b"2", 1)}))
    assert not refused(memory.url, into).can_pass


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff"])
def test_what_is_no_manifest_is_refused(memory: Memory, into: Path, data: bytes) -> None:
    memory.write(MANIFEST, data)
    assert "not a manifest" in str(refused(memory.url, into))


@pytest.mark.parametrize("size", [None, -1, "12"])
def test_a_size_that_is_not_told_is_not_read(
    memory: Memory, into: Path, monkeypatch: pytest.MonkeyPatch, size: object
) -> None:
    info = MemoryFileSystem.info

    def silent(files: MemoryFileSystem, path: str) -> dict[str, object]:
        return {**info(files, path), "size": size}

    monkeypatch.setattr(MemoryFileSystem, "info", silent)
    assert "the server does not report its size" in str(refused(memory.url, into))
    assert memory.opened() == []


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [linked, as_pipe])
@pytest.mark.parametrize("name", ["router.json", MANIFEST])
def test_what_is_no_regular_file_is_refused(
    source: Path, into: Path, harm: Callable[[Path], None], name: str
) -> None:
    harm(source / name)
    assert f"{name}: not a regular file" in str(refused(f"file://{source}", into))


def test_a_folder_that_cannot_be_made_is_named(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refusal(lambda: fetch_bundle(memory.url, tmp_path / "file" / "into", MAX_BYTES))
    assert str(error) == f"{tmp_path}/file/into: Not a directory"
    assert not error.can_pass


# Experts.


@pytest.fixture
def expert(adapter: AdapterFiles, memory: Memory) -> str:
    """The URL of a folder that peft wrote."""
    memory.write(f"expert/{CONFIG_FILE}", adapter.config)
    memory.write(f"expert/{WEIGHTS_FILE}", adapter.weights)
    memory.write("expert/README.md", b"peft writes one")
    memory.write("expert/adapter_model.bin", b"a pickle")
    return f"{memory.url}/expert"


def test_an_expert_is_its_two_files(
    expert: str, memory: Memory, adapter: AdapterFiles, into: Path
) -> None:
    fetched = fetch_expert(expert, into)
    assert contents(fetched) == {CONFIG_FILE: adapter.config, WEIGHTS_FILE: adapter.weights}
    assert read_expert("mine", fetched).weights == adapter.weights
    names = [f"expert/{name}" for name in (CONFIG_FILE, WEIGHTS_FILE)]
    assert memory.calls == [(method, name) for method in ("info", "open") for name in names]


def test_a_local_expert_is_used_where_it_is(tmp_path: Path, into: Path) -> None:
    assert fetch_expert(str(tmp_path), into) == tmp_path
    assert not into.exists()


@pytest.mark.parametrize(
    ("name", "most"), [(CONFIG_FILE, MAX_CONFIG_BYTES), (WEIGHTS_FILE, MAX_WEIGHTS_BYTES)]
)
def test_an_oversize_expert_is_refused_unread(
    tmp_path: Path, into: Path, adapter: AdapterFiles, name: str, most: int
) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(adapter.config)
    (tmp_path / WEIGHTS_FILE).write_bytes(adapter.weights)
    os.truncate(tmp_path / name, most + 1)
    error = refusal(lambda: fetch_expert(f"file://{tmp_path}", into))
    assert str(error).endswith(f"{name}: {most + 1} bytes; {most} are allowed")
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_an_expert_without_a_file_is_refused(
    expert: str, memory: Memory, into: Path, name: str
) -> None:
    memory.files.rm_file(f"/models/v1/expert/{name}")
    error = refusal(lambda: fetch_expert(expert, into))
    assert str(error) == f"{expert}: {name}: not found"
    assert list(into.iterdir()) == []
