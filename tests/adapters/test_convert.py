"""A bundle of format 2 becomes one of format 3 with the same content, or is refused whole."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from adapters.old_bundle import OLD_FILES, write_old
from rankloom_adapters import convert as conversion
from rankloom_adapters.bundle import (
    FORMER_EVENTS,
    MANIFEST,
    ROUTER,
    SIGNATURE,
    BundleError,
    open_bundle,
    seal,
)
from rankloom_adapters.convert import CONVERTED_FROM, ConversionError, convert


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_old(tmp_path / "old")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_names_change_and_content_stays(old: Path, tmp_path: Path) -> None:
    before = snapshot(old)
    digest = convert(old, tmp_path / "new")
    new = open_bundle(tmp_path / "new")
    new.check()
    assert new.digest == digest
    expected = {ROUTER if name == "gate.json" else name: OLD_FILES[name] for name in OLD_FILES}
    assert {name: new.read(name) for name in new.parts} == expected
    source = hashlib.sha256(before[MANIFEST]).hexdigest()
    assert new.metadata == {"feature_version": "0a1b", "protocol": "p1", CONVERTED_FROM: source}
    assert snapshot(old) == before


@pytest.mark.parametrize("version", [2, 3])
def test_the_events_of_users_are_left_out(tmp_path: Path, version: int) -> None:
    old = write_old(tmp_path / "old", more={FORMER_EVENTS: b'["somebody", []]'})
    if version == 3:
        (old / "gate.json").rename(old / ROUTER)
        seal(old, {})
    convert(old, tmp_path / "new")
    new = open_bundle(tmp_path / "new")
    assert FORMER_EVENTS not in new.parts
    assert new.parts.keys() == (OLD_FILES.keys() | {ROUTER}) - {"gate.json"}
    with pytest.raises(BundleError, match="needs no conversion"):
        convert(tmp_path / "new", tmp_path / "newer")


def test_the_new_bundle_is_whole_without_the_old_one(old: Path, tmp_path: Path) -> None:
    convert(old, tmp_path / "new")
    for path in [path for path in old.rglob("*") if path.is_file()]:
        path.unlink()
    open_bundle(tmp_path / "new").check()


def test_files_are_copied_where_links_cannot_be_made(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = convert(old, tmp_path / "linked")

    def fail(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    assert convert(old, tmp_path / "copied") == linked
    open_bundle(tmp_path / "copied").check()
    assert (tmp_path / "copied" / ROUTER).stat().st_nlink == 1


@pytest.mark.parametrize("name", OLD_FILES)
@pytest.mark.parametrize("can_link", [True, False])
def test_an_altered_part_is_named_and_nothing_is_left(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, can_link: bool
) -> None:
    if not can_link:
        monkeypatch.setattr(os, "link", lambda *_, **__: os.stat("/nowhere"))
    data = OLD_FILES[name]
    (old / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="altered") as caught:
        convert(old, tmp_path / "new")
    assert caught.value.part == name
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (1, "format 1, this version reads format 3; train it again"),
        (4, "format 4, this version reads format 3; use a newer rankloom, or train it again"),
    ],
)
def test_only_format_2_is_converted(tmp_path: Path, version: int, reason: str) -> None:
    write_old(tmp_path / "old", version)
    with pytest.raises(BundleError) as caught:
        convert(tmp_path / "old", tmp_path / "new")
    assert str(caught.value) == f"bundle: manifest.json: {reason}"
    assert not (tmp_path / "new").exists()


def test_a_bundle_of_format_3_needs_no_conversion(tmp_path: Path) -> None:
    (tmp_path / "now").mkdir()
    (tmp_path / "now" / ROUTER).write_bytes(b"{}")
    seal(tmp_path / "now", {})
    with pytest.raises(BundleError, match="format 3 already; it needs no conversion"):
        convert(tmp_path / "now", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be read in .*: No such file"):
        convert(tmp_path, tmp_path / "new")


def test_a_part_of_either_name_is_refused(tmp_path: Path) -> None:
    write_old(tmp_path / "old", 2, {ROUTER: b"{}"})
    with pytest.raises(BundleError, match=r"lists both gate\.json and router\.json"):
        convert(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_exists_is_not_overwritten(old: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "new"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_bytes(b"mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConversionError) as caught:
        convert(old, target)
    assert str(caught.value) == f"{target}: exists already; choose a folder that is new"
    assert os.path.lexists(target)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_inside_the_bundle_is_refused(old: Path) -> None:
    before = snapshot(old)
    for target in (old, old / "new"):
        with pytest.raises(ConversionError, match="is inside the bundle"):
            convert(old, target)
    assert snapshot(old) == before


def test_a_signature_is_dropped_only_on_request(old: Path, tmp_path: Path) -> None:
    (old / SIGNATURE).write_bytes(b"{}")
    with pytest.raises(BundleError, match="repeat with --drop-signature") as caught:
        convert(old, tmp_path / "new")
    assert caught.value.part == SIGNATURE
    assert not (tmp_path / "new").exists()
    convert(old, tmp_path / "new", drop_signature=True)
    assert not (tmp_path / "new" / SIGNATURE).exists()
    assert (old / SIGNATURE).exists()


def test_a_full_disk_leaves_nothing(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "seal", fail)
    with pytest.raises(ConversionError, match="new: cannot be written: No space left on device"):
        convert(old, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_manifest_is_what_a_new_bundle_has(old: Path, tmp_path: Path) -> None:
    convert(old, tmp_path / "new")
    fields = json.loads((tmp_path / "new" / MANIFEST).read_bytes())
    assert fields["format"] == 3
    assert seal(tmp_path / "new", fields["metadata"]) == open_bundle(tmp_path / "new").digest
