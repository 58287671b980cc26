"""Key files are private to their owner and are never overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from rankloom_adapters.signing import KeyFileError, Keyring, generate_keys, key_id, read_private_key


def test_keys_are_files_for_their_owner(tmp_path: Path) -> None:
    private, public = tmp_path / "mine.key", tmp_path / "mine.pub"
    generate_keys(private, public)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert private.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert public.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----\n")
    key = read_private_key(private)
    assert set(Keyring.from_files([public]).keys) == {key_id(key.public_key())}


@pytest.mark.parametrize("taken", ["one", "two"])
def test_no_key_is_overwritten(tmp_path: Path, taken: str) -> None:
    paths = tmp_path / "one", tmp_path / "two"
    (tmp_path / taken).write_text("mine")
    with pytest.raises(KeyFileError, match=f"{taken}: cannot be created: File exists"):
        generate_keys(*paths)
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_both_keys_need_a_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="File exists"):
        generate_keys(tmp_path / "one", tmp_path / "one")
    with pytest.raises(KeyFileError, match="No such file"):
        generate_keys(tmp_path / "none" / "one", tmp_path / "two")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", range(2))
def test_half_a_key_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    left = iter(range(2))

    def failing(_: int) -> None:
        if next(left) == number:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(KeyFileError, match="No space left"):
        generate_keys(tmp_path / "one", tmp_path / "two")
    assert list(tmp_path.iterdir()) == []


PEM, SPKI = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
OWN = Ed25519PrivateKey.generate()
LOCKED = OWN.private_bytes(PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
NO_PUBLIC_KEYS = {
    "rsa": RSA.public_key().public_bytes(PEM, SPKI),
    "curve": CURVE.public_key().public_bytes(PEM, SPKI),
    "private": OWN.private_bytes(PEM, PrivateFormat.PKCS8, NoEncryption()),
    "der": OWN.public_key().public_bytes(Encoding.DER, SPKI),
    "empty": b"",
    "text": b"hello",
    "cut short": OWN.public_key().public_bytes(PEM, SPKI)[:60],
    "long": b"-" * 5000,
}
NO_PRIVATE_KEYS = {
    "rsa": RSA.private_bytes(PEM, PrivateFormat.PKCS8, NoEncryption()),
    "curve": CURVE.private_bytes(PEM, PrivateFormat.PKCS8, NoEncryption()),
    "public": OWN.public_key().public_bytes(PEM, SPKI),
    "passphrase": LOCKED,
    "openssh": OWN.private_bytes(PEM, PrivateFormat.OpenSSH, NoEncryption()),
    "der": OWN.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    "empty": b"",
}


@pytest.mark.parametrize("data", NO_PUBLIC_KEYS.values(), ids=list(NO_PUBLIC_KEYS))
def test_a_file_that_is_no_public_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match=r"file: (not an Ed25519 public key in PEM|over)"):
        Keyring.from_files([path])


@pytest.mark.parametrize("data", NO_PRIVATE_KEYS.values(), ids=list(NO_PRIVATE_KEYS))
def test_a_file_that_is_no_private_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(KeyFileError, match="file: not an Ed25519 private key in PEM without"):
        read_private_key(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="missing: cannot be read: No such file"):
        Keyring.from_files([tmp_path / "missing"])
    with pytest.raises(KeyFileError, match="cannot be read: Is a directory"):
        read_private_key(tmp_path)
