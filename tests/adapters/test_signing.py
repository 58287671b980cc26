"""A signature is valid for one manifest and one key, and for no other byte."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rankloom_adapters.bundle import (
    MANIFEST,
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
    BundleError,
    open_bundle,
    seal,
)
from rankloom_adapters.signing import (
    Keyring,
    SignatureError,
    generate_keys,
    read_private_key,
    sign,
)
from rankloom_adapters.store import BundleStore

Harm = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sealed(tmp_path / "bundle", b"{}")


def sealed(folder: Path, router: bytes) -> Path:
    (folder / "experts" / "one").mkdir(parents=True)
    (folder / "router.json").write_bytes(router)
    (folder / "experts" / "one" / "weights").write_bytes(bytes(range(256)))
    seal(folder, {"made": "for a test"})
    return folder


def new_key(folder: Path, name: str) -> tuple[Path, Path]:
    paths = folder / f"{name}.key", folder / f"{name}.pub"
    generate_keys(*paths)
    return paths


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """The files of a private and a public key."""
    return new_key(tmp_path, "one")


@pytest.fixture
def ring(keys: tuple[Path, Path]) -> Keyring:
    return Keyring.from_files([keys[1]])


@pytest.fixture
def signed(folder: Path, keys: tuple[Path, Path]) -> Path:
    sign(open_bundle(folder), read_private_key(keys[0]))
    return folder


def refusal(ring: Keyring, folder: Path) -> str:
    with pytest.raises(SignatureError) as caught:
        ring.check(open_bundle(folder))
    assert caught.value.part == SIGNATURE
    return str(caught.value)


def test_what_was_signed_is_accepted(signed: Path, ring: Keyring) -> None:
    (signer,) = ring.keys
    assert ring.check(open_bundle(signed)) == signer
    assert json.loads((signed / SIGNATURE).read_bytes())["key_id"] == signer


def test_a_signature_is_no_part(signed: Path) -> None:
    """The signature does not change the digest, and sealing ignores it."""
    before = open_bundle(signed)
    assert SIGNATURE not in before.parts
    (signed / f"{SIGNATURE}.tmp").write_bytes(b"half a signature")
    assert seal(signed, before.metadata) == before.digest
    (signed / SIGNATURE).unlink()
    assert seal(signed, before.metadata) == before.digest


def test_every_byte_of_the_manifest_counts(signed: Path, ring: Keyring) -> None:
    bundle = open_bundle(signed)
    for index in range(len(bundle.manifest)):
        altered = bytearray(bundle.manifest)
        altered[index] ^= 1
        with pytest.raises(SignatureError, match="signature of this manifest"):
            ring.check(replace(bundle, manifest=bytes(altered)))


def test_a_manifest_altered_on_the_disk_is_refused(signed: Path, ring: Keyring) -> None:
    data = (signed / MANIFEST).read_bytes()
    (signed / MANIFEST).write_bytes(data.replace(b"for a test", b"for a fest"))
    assert "signature of this manifest" in refusal(ring, signed)


def test_every_byte_of_the_signature_file_counts(signed: Path, ring: Keyring) -> None:
    data = (signed / SIGNATURE).read_bytes()
    for index in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[index] ^= 1 << bit
            (signed / SIGNATURE).write_bytes(altered)
            assert refusal(ring, signed), (index, bit)


def test_another_bundles_signature_is_refused(
    signed: Path, keys: tuple[Path, Path], ring: Keyring, tmp_path: Path
) -> None:
    other = sealed(tmp_path / "other", b"[]")
    sign(open_bundle(other), read_private_key(keys[0]))
    ring.check(open_bundle(other))
    shutil.copy(other / SIGNATURE, signed / SIGNATURE)
    assert "signature of this manifest" in refusal(ring, signed)


def test_a_signature_of_the_bare_manifest_is_refused(
    signed: Path, keys: tuple[Path, Path], ring: Keyring
) -> None:
    """Otherwise a signature of another text by the same key could sign a bundle."""
    bundle, key = open_bundle(signed), read_private_key(keys[0])
    sign(replace(bundle, manifest=b""), key)
    assert "signature of this manifest" in refusal(ring, signed)


def test_an_unsigned_bundle_is_refused(folder: Path, ring: Keyring) -> None:
    assert refusal(ring, folder) == "bundle: manifest.sig: missing: the bundle is not signed"


def test_an_unknown_key_is_refused(signed: Path, tmp_path: Path) -> None:
    stranger = Keyring.from_files([new_key(tmp_path, "two")[1]])
    assert "which is not trusted here" in refusal(stranger, signed)
    assert "which is not trusted here" in refusal(Keyring.from_files([]), signed)


def test_an_unknown_key_under_a_trusted_id_is_refused(
    signed: Path, ring: Keyring, tmp_path: Path
) -> None:
    (trusted,) = ring.keys
    own = sign(open_bundle(signed), read_private_key(new_key(tmp_path, "two")[0]))
    data = (signed / SIGNATURE).read_bytes()
    (signed / SIGNATURE).write_bytes(data.replace(own.encode(), trusted.encode()))
    assert "signature of this manifest" in refusal(ring, signed)


def test_a_key_is_rotated_with_both_in_the_ring(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """The new key's signature replaces the old one, and then the old key is removed."""
    private, public = new_key(tmp_path, "two")
    both = Keyring.from_files([keys[1], public])
    old = both.check(open_bundle(signed))
    new = sign(open_bundle(signed), read_private_key(private))
    assert old != new
    assert set(both.keys) == {old, new}
    assert both.check(open_bundle(signed)) == new
    assert Keyring.from_files([public]).check(open_bundle(signed)) == new
    assert old not in refusal(Keyring.from_files([keys[1]]), signed)


def rewritten(**fields: object) -> Harm:
    def rewrite(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_bytes()) | fields) + "\n")

    return rewrite


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def appended(data: bytes) -> Harm:
    return lambda path: path.write_bytes(path.read_bytes() + data)


HARMS: dict[str, tuple[Harm, str]] = {
    "later format": (
        rewritten(format=2),
        "format 2, this version reads format 1; sign the bundle again",
    ),
    "format by another type": (rewritten(format=True), "not in the canonical encoding"),
    "format beyond measure": (rewritten(format="x" * 1000), "format 'xxx"),
    "extra field": (rewritten(note="hello"), "not in the canonical encoding"),
    "no key id": (rewritten(key_id=None), "not a signature file"),
    "key id of a list": (rewritten(key_id=["a"]), "not a signature file"),
    "long key id": (rewritten(key_id="a" * 17), "not in the canonical encoding"),
    "capital key id": (rewritten(key_id="A" * 16), "not in the canonical encoding"),
    "no signature": (rewritten(signature=None), "not a signature file"),
    "empty signature": (rewritten(signature=""), "signature of this manifest"),
    "short signature": (rewritten(signature="AAAA"), "signature of this manifest"),
    "no base64": (rewritten(signature="*"), "not a signature file"),
    "empty": (lambda path: path.write_bytes(b""), "not a signature file"),
    "list": (lambda path: path.write_bytes(b"[]"), "not a signature file"),
    "nested": (lambda path: path.write_bytes(b"[" * 4000), "not a signature file"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not a signature file"),
    "more space": (appended(b"\n"), "not in the canonical encoding"),
    "two in one": (appended(b"{}"), "not a signature file"),
    "oversize": (appended(b" " * MAX_SIGNATURE_BYTES), f"over {MAX_SIGNATURE_BYTES} bytes"),
    "a terabyte": (lambda path: os.truncate(path, 1 << 40), f"over {MAX_SIGNATURE_BYTES} bytes"),
    "link": (linked, "cannot be read"),
    "link to nothing": (dangling, "cannot be read"),
    "folder": (as_folder, "not a regular file"),
    "pipe": (as_pipe, "not a regular file"),
}


@pytest.mark.parametrize(("harm", "reason"), HARMS.values(), ids=list(HARMS))
def test_what_is_no_signature_file_is_refused(
    signed: Path, ring: Keyring, harm: Harm, reason: str
) -> None:
    harm(signed / SIGNATURE)
    message = refusal(ring, signed)
    assert message.startswith(f"bundle: {SIGNATURE}: ")
    assert reason in message
    assert len(message) < 120


def test_a_signature_is_not_written_through_a_link(folder: Path, keys: tuple[Path, Path]) -> None:
    victim = folder.parent / "victim"
    victim.write_text("mine")
    for name in (SIGNATURE, f"{SIGNATURE}.tmp"):
        (folder / name).symlink_to(victim)
    sign(open_bundle(folder), read_private_key(keys[0]))
    assert victim.read_text() == "mine"
    Keyring.from_files([keys[1]]).check(open_bundle(folder))


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, f"{SIGNATURE}.tmp", f"{SIGNATURE}/x"])
def test_a_manifest_cannot_list_its_own_signature(folder: Path, name: str) -> None:
    fields = json.loads((folder / MANIFEST).read_bytes())
    fields["files"][name] = {"sha256": "0", "bytes": 0}
    (folder / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match="which cannot be a part"):
        open_bundle(folder)


def test_a_part_of_negative_size_is_refused(folder: Path) -> None:
    fields = json.loads((folder / MANIFEST).read_bytes())
    fields["files"]["router.json"]["bytes"] = -1
    (folder / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match="not a manifest"):
        open_bundle(folder)


# Signatures in the store.


def test_the_store_keeps_the_signature(signed: Path, ring: Keyring, tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "kept")
    kept = open_bundle(store.folder_of(store.put(signed)))
    assert (kept.folder / SIGNATURE).read_bytes() == (signed / SIGNATURE).read_bytes()
    ring.check(kept)
    kept.check()


def test_the_store_takes_a_later_signature(
    folder: Path, keys: tuple[Path, Path], ring: Keyring, tmp_path: Path
) -> None:
    """No signature keeps the stored one; another one replaces it."""
    store = BundleStore(tmp_path / "kept")
    kept = store.folder_of(store.put(folder))
    assert not (kept / SIGNATURE).exists()
    sign(open_bundle(folder), read_private_key(keys[0]))
    store.put(folder)
    ring.check(open_bundle(kept))
    (folder / SIGNATURE).unlink()
    store.put(folder)
    ring.check(open_bundle(kept))
    signer = sign(open_bundle(folder), read_private_key(new_key(tmp_path, "two")[0]))
    store.put(folder)
    assert signer in (kept / SIGNATURE).read_text()
    store.known(kept.name)
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize("kept_before", [False, True])
@pytest.mark.parametrize("harm", [linked, as_folder, as_pipe, appended(b" " * 5000)])
def test_the_store_keeps_no_signature_that_is_none(
    signed: Path, tmp_path: Path, harm: Harm, kept_before: bool
) -> None:
    store = BundleStore(tmp_path / "kept")
    if kept_before:
        store.put(signed)
    harm(signed / SIGNATURE)
    with pytest.raises(BundleError, match=SIGNATURE):
        store.put(signed)
    assert len(store.digests) == kept_before
