from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankloom_adapters.bundle import (
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    BundleError,
    expert_part,
    open_bundle,
    seal,
)

FILES = {
    "router.json": b"{}",
    "experts/b/adapter_config.json": b"config",
    "experts/a/adapter_config.json": b"config",
    "features/encoder.onnx": bytes(range(256)),
    "empty": b"",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "bundle")


def write(folder: Path) -> Path:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def manifest_of(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return fields


def refusal(folder: Path) -> BundleError:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder).check()
    assert str(caught.value).startswith(f"bundle: {caught.value.part}: ")
    return caught.value


def test_what_is_sealed_can_be_opened_and_read(folder: Path) -> None:
    digest = seal(folder, {"protocol": "p1"})
    bundle = open_bundle(folder)
    assert bundle.digest == digest
    assert bundle.metadata == {"protocol": "p1"}
    assert {name: bundle.read(name) for name in bundle.parts} == FILES
    assert bundle.experts() == ("a", "b")
    bundle.check()


def test_the_digest_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    first = seal(folder, {})
    assert seal(folder, {}) == first
    assert seal(write(tmp_path / "other"), {}) == first


@pytest.mark.parametrize("name", [name for name, data in FILES.items() if data])
def test_any_byte_changes_the_digest(folder: Path, name: str) -> None:
    first = seal(folder, {})
    data = bytearray((folder / name).read_bytes())
    for index in {0, len(data) // 2, len(data) - 1}:
        changed = data.copy()
        changed[index] ^= 1
        (folder / name).write_bytes(changed)
        assert seal(folder, {}) != first


def test_metadata_and_names_change_the_digest(folder: Path) -> None:
    first = seal(folder, {})
    assert seal(folder, {"a": 1}) != first
    (folder / "empty").rename(folder / "other")
    assert seal(folder, {}) != first


def test_an_unfinished_seal_leaves_no_trace_in_the_next(folder: Path) -> None:
    (folder / f"{MANIFEST}.tmp").write_bytes(b"half a manifest")
    seal(folder, {})
    bundle = open_bundle(folder)
    assert set(bundle.parts) == set(FILES)
    bundle.check()


def test_only_the_manifest_of_the_bundle_itself_is_left_out(folder: Path) -> None:
    (folder / "features" / MANIFEST).write_bytes(b"a part")
    seal(folder, {})
    assert open_bundle(folder).read(f"features/{MANIFEST}") == b"a part"


@pytest.mark.parametrize("name", ["late", "features/late"])
@pytest.mark.parametrize("target", ["router.json", "..", "nowhere", "late"])
def test_a_link_is_not_sealed(folder: Path, name: str, target: str) -> None:
    (folder / name).symlink_to(target)
    with pytest.raises(BundleError, match="not a regular file") as caught:
        seal(folder, {})
    assert caught.value.part == name
    assert not (folder / MANIFEST).exists()


def test_a_bundle_below_a_linked_folder_is_read(folder: Path, tmp_path: Path) -> None:
    """Only links inside a bundle are refused; its own folder may be one."""
    seal(folder, {})
    (tmp_path / "current").symlink_to(folder)
    linked = open_bundle(tmp_path / "current")
    linked.check()
    assert linked.digest == open_bundle(folder).digest


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def alter(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_suffix(".nowhere"))


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (remove, "missing"),
        (truncate, "bytes long"),
        (lengthen, "bytes long"),
        (alter, "altered"),
        (link, "not a regular file"),
        (dangle, "not a regular file"),
        (loop, "not a regular file"),
        (make_folder, "not a regular file"),
        (make_pipe, "not a regular file"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.parametrize("name", ["router.json", "features/encoder.onnx"])
def test_a_harmed_part_is_refused_by_name(
    folder: Path, name: str, harm: Callable[[Path], None], reason: str
) -> None:
    seal(folder, {})
    harm(folder / name)
    error = refusal(folder)
    assert error.part == name
    assert reason in str(error)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("harm", [link, dangle, loop, make_folder, make_pipe])
def test_a_manifest_that_is_no_regular_file_is_refused(
    folder: Path, harm: Callable[[Path], None]
) -> None:
    """Opening a pipe waits for its writer, and a link may lead to an endless file."""
    seal(folder, {})
    harm(folder / MANIFEST)
    assert refusal(folder).part == MANIFEST


def test_a_part_below_a_linked_folder_is_refused(folder: Path) -> None:
    seal(folder, {})
    (folder / "features").rename(folder.parent / "elsewhere")
    (folder / "features").symlink_to(folder.parent / "elsewhere")
    assert refusal(folder).part == "features/encoder.onnx"


def test_a_part_that_is_not_listed_is_refused(folder: Path) -> None:
    seal(folder, {})
    (folder / "late").write_bytes(b"")
    with pytest.raises(BundleError) as caught:
        open_bundle(folder).read("late")
    assert caught.value.part == "late"


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "a/../../outside",
        "/etc/passwd",
        "",
        ".",
        "a\\b",
        "experts/",
        "a\0b",
        "a//b",
        "./a",
        "\ud800",
    ],
    ids=repr,
)
def test_a_name_outside_the_bundle_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"")
    seal(folder, {})
    fields = manifest_of(folder)
    fields["files"][name] = {"sha256": "0", "bytes": 0}
    (folder / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError) as caught:
        open_bundle(folder).experts()
    assert caught.value.part == MANIFEST


def fields_with(**changed: object) -> bytes:
    return json.dumps({"format": FORMAT, "metadata": {}, "files": {}} | changed).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        fields_with(files=[]),
        fields_with(files=None),
        fields_with(files={"a": None}),
        fields_with(files={"a": {}}),
        fields_with(files={"a": {"sha256": "0", "bytes": "many"}}),
        fields_with(files={"a": {"sha256": "0", "bytes": None}}),
        fields_with(files={"a": {"sha256": "0", "bytes": float("inf")}}),
        fields_with(files={"a": {"sha256": 0, "bytes": 0}}),
        fields_with(files={"a": {"sha256": "0", "bytes": True}}),
        fields_with(metadata=None),
        fields_with(metadata=[]),
        fields_with(metadata=3),
        fields_with(format=FORMAT + 1),
        fields_with(format=None),
        fields_with(format=[FORMAT]),
    ],
    ids=lambda data: repr(data[:60]),
)
def test_a_manifest_that_is_none_is_refused(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    assert refusal(folder).part == MANIFEST


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (1, "train it again"),
        (2, "train it again, or convert it with: rankloom bundle convert OLD NEW"),
        (4, "use a newer rankloom, or train it again"),
        ("2", "train it again"),
        (True, "train it again"),
    ],
)
def test_another_format_is_named_with_what_to_do(folder: Path, found: object, remedy: str) -> None:
    (folder / MANIFEST).write_bytes(fields_with(format=found))
    reason = f"format {found!r}, this version reads format 3; {remedy}"
    assert str(refusal(folder)) == f"bundle: manifest.json: {reason}"


def test_another_format_may_describe_its_parts_in_another_way(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(json.dumps({"format": 1, "parts": []}).encode())
    assert "format 1" in str(refusal(folder))


def test_a_manifest_beyond_all_measure_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    assert "over" in str(refusal(folder))


def test_a_folder_without_a_manifest_is_no_bundle(folder: Path, tmp_path: Path) -> None:
    assert refusal(folder).part == MANIFEST
    assert refusal(tmp_path / "nowhere").part == MANIFEST


def test_the_part_of_an_expert() -> None:
    assert expert_part("group-0", "x.json") == "experts/group-0/x.json"
