"""A bundle is stored completely or not at all, whatever happens to the disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankloom_adapters.bundle import MANIFEST, BundleError, open_bundle, seal
from rankloom_adapters.store import BundleStore, StoreError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A sealed bundle of three parts, one of them in a folder."""
    folder = tmp_path / "source"
    (folder / "experts" / "one").mkdir(parents=True)
    for name in ("router.json", "prompt.json", "experts/one/weights"):
        (folder / name).write_bytes(name.encode() * 1000)
    seal(folder, {"made": "for a test"})
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_put_is_there_whole(source: Path, kept: Path) -> None:
    digest = BundleStore(kept).put(source)
    shutil.rmtree(source)
    store = BundleStore(kept)
    bundle = open_bundle(store.folder_of(digest))
    bundle.check()
    assert bundle.digest == digest
    assert store.digests == store.unknown == {digest}
    store.known(digest)
    assert store.unknown == frozenset()
    assert names(kept) == [digest]


def test_the_same_bundle_is_kept_once(source: Path, kept: Path) -> None:
    store = BundleStore(kept)
    with ThreadPoolExecutor(4) as pool:
        found = {one.result() for one in [pool.submit(store.put, source) for _ in range(8)]}
    assert found == store.digests == store.unknown
    store.known(*found)
    assert names(kept) == sorted(found)


def test_a_damaged_bundle_is_not_kept(source: Path, kept: Path) -> None:
    (source / "router.json").write_bytes(b"other bytes")
    with pytest.raises(BundleError, match=r"router\.json"):
        BundleStore(kept).put(source)
    assert names(kept) == []


def test_what_a_killed_copy_left_is_swept(source: Path, kept: Path) -> None:
    store = BundleStore(kept)
    digest = store.put(source)
    (kept / digest).rename(kept / ".unfinished-abc")
    assert store.digests == frozenset()
    BundleStore(kept)
    assert names(kept) == []


def test_a_removed_bundle_is_gone(source: Path, kept: Path) -> None:
    store = BundleStore(kept)
    digest = store.put(source)
    for _ in range(2):
        store.remove(digest)
        assert names(kept) == []
    with pytest.raises(BundleError, match=f"bundle {digest[:12]} is not in the store"):
        store.folder_of(digest)


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_disk_that_fails_keeps_nothing(
    source: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, full: bool
) -> None:
    """It fails at each of the syncs of a copy."""
    store, fsync, left = BundleStore(kept), os.fsync, iter(range(1000))

    def failing(handle: int) -> None:
        if next(left) == number:
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    last = 7  # four files and three folders
    if number == last:  # the copy has its final name by then, so the next call finds it
        with pytest.raises(StoreError):
            store.put(source)
    elif number > last:
        assert store.put(source) in store.digests
        return
    else:
        with pytest.raises(StoreError) as caught:
            store.put(source)
        assert caught.value.full is full
        assert store.digests == frozenset()
    monkeypatch.setattr(os, "fsync", fsync)
    open_bundle(store.folder_of(store.put(source))).check()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        BundleStore(tmp_path / "file" / "kept")


def test_a_bundle_without_its_manifest_is_none(source: Path, kept: Path) -> None:
    store = BundleStore(kept)
    digest = store.put(source)
    (kept / digest / MANIFEST).unlink()
    with pytest.raises(BundleError):
        store.folder_of(digest)


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "router.json").read_bytes())
    data[-1] ^= 1
    (folder / "router.json").write_bytes(data)


def alter_the_manifest(folder: Path) -> None:
    """It becomes the valid manifest of another bundle."""
    (folder / "router.json").write_bytes(b"other bytes")
    seal(folder, {"made": "for a test"})


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip_a_byte, r"router\.json: altered"),
    "truncated part": (lambda at: os.truncate(at / "prompt.json", 10), "prompt.json: 10 bytes"),
    "missing part": (lambda at: (at / "experts/one/weights").unlink(), "weights: missing"),
    "linked part": (lambda at: linked(at / "router.json"), "router.json: not a regular file"),
    "manifest of another bundle": (alter_the_manifest, r"manifest\.json: altered: stored as"),
    "manifest cut": (lambda at: os.truncate(at / MANIFEST, 10), "not a manifest"),
    "no manifest": (lambda at: (at / MANIFEST).unlink(), "is not in the store"),
}


def linked(path: Path) -> None:
    """A link to the same bytes outside the store."""
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=list(DAMAGES))
def test_a_check_finds_what_is_damaged_and_leaves_it(
    source: Path, kept: Path, damage: Callable[[Path], object], message: str
) -> None:
    store = BundleStore(kept)
    digest = store.put(source)
    store.check(digest)
    damage(kept / digest)
    left = set(kept.rglob("*"))
    with pytest.raises(BundleError, match=message):
        store.check(digest)
    assert set(kept.rglob("*")) == left
    assert store.digests == {digest}


def test_a_check_of_one_bundle_reads_no_other(source: Path, kept: Path) -> None:
    store = BundleStore(kept)
    damaged = store.put(source)
    (source / "router.json").write_bytes(b"another router")  # equal parts would share a file
    healthy = seal(source, {"made": "for a test"})
    store.put(source)
    flip_a_byte(kept / damaged)
    store.check(healthy)
    with pytest.raises(BundleError):
        store.check(damaged)
    with pytest.raises(BundleError, match="is not in the store"):
        store.check("0" * 64)


def test_a_damaged_bundle_is_no_reason_to_refuse_another(source: Path, kept: Path) -> None:
    store = BundleStore(kept)
    damaged = store.folder_of(store.put(source))
    (damaged / MANIFEST).write_bytes(b"{")
    (source / "router.json").write_bytes(b"another")
    seal(source, {"made": "later"})
    digest = store.put(source)
    open_bundle(store.folder_of(digest)).check()
    assert store.digests == {damaged.name, digest}


def test_a_store_that_cannot_be_read_says_so(kept: Path) -> None:
    store = BundleStore(kept)
    kept.rmdir()
    with pytest.raises(StoreError, match="No such file"):
        _ = store.digests
