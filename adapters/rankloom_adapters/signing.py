"""Ed25519 signatures of bundles.

The manifest has the digest of every part, so that a signature of the manifest covers them all.
The file `manifest.sig` beside the manifest holds the id of the key and the signature. It has
exactly one valid encoding; any other is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from rankloom_adapters.bundle import SIGNATURE, Bundle, BundleError, read_signature, replace_file

FORMAT = 1
MAX_KEY_BYTES = 4 << 10
# Precedes the manifest in the signed text, so that a signature for another purpose is not valid.
_DOMAIN = b"rankloom bundle 1\n"
_KEY_ID = re.compile(r"[0-9a-f]{16}")


class SignatureError(BundleError):
    """The bundle has no valid signature of a trusted key; the message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(SIGNATURE, reason)


class KeyFileError(ValueError):
    """A key file cannot be read or created; the message names it and says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The trusted public keys by id."""

    keys: Mapping[str, Ed25519PublicKey]

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> Keyring:
        """Reads PEM files. Raises KeyFileError."""
        keys = [_read_public_key(path) for path in paths]
        return cls({key_id(key): key for key in keys})

    def check(self, bundle: Bundle) -> str:
        """Returns the id of the trusted key that signed the bundle. Raises SignatureError.

        It does not read the parts: `Bundle.read` compares them with the manifest.
        """
        return self.check_manifest(bundle.folder, bundle.manifest)

    def check_manifest(self, folder: Path, manifest: bytes) -> str:
        """The same for the bytes of a manifest, which need not be parsed. Raises SignatureError."""
        signer, signature = _read_signature(folder)
        if signer not in self.keys:
            raise SignatureError(f"signed by key {signer}, which is not trusted here")
        try:
            self.keys[signer].verify(signature, _DOMAIN + manifest)
        except InvalidSignature as error:
            raise SignatureError(f"not key {signer}'s signature of this manifest") from error
        return signer


def key_id(key: Ed25519PublicKey) -> str:
    """A public key's id: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(bundle: Bundle, key: Ed25519PrivateKey) -> str:
    """Writes the signature file, or replaces it; returns the key's id. Raises OSError."""
    signer = key_id(key.public_key())
    replace_file(bundle.folder / SIGNATURE, _encode(signer, key.sign(_DOMAIN + bundle.manifest)))
    return signer


def generate_keys(private: Path, public: Path) -> str:
    """Creates a key and writes it to two new files; returns its id. Raises KeyFileError."""
    key = Ed25519PrivateKey.generate()
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(private, encoded, 0o600)
    try:
        encoded = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write_new(public, encoded, 0o644)
    except KeyFileError:
        private.unlink()
        raise
    return key_id(key.public_key())


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Reads a PEM file without a passphrase. Raises KeyFileError."""
    key = _read_key(path, lambda data: load_pem_private_key(data, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(path, "not an Ed25519 private key in PEM without a passphrase")
    return key


def _read_public_key(path: Path) -> Ed25519PublicKey:
    key = _read_key(path, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(path, "not an Ed25519 public key in PEM")
    return key


def _read_key(path: Path, load: Callable[[bytes], object]) -> object:
    """Returns the key in the file, None where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_KEY_BYTES:
        raise KeyFileError(path, f"over {MAX_KEY_BYTES} bytes")
    try:
        return load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise KeyFileError(path, f"cannot be created: {error.strerror}") from error
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # leaves no partial key
        raise KeyFileError(path, f"cannot be written: {error.strerror}") from error


def _encode(signer: str, signature: bytes) -> bytes:
    encoded = base64.b64encode(signature).decode()
    fields = {"format": FORMAT, "key_id": signer, "signature": encoded}
    return json.dumps(fields).encode() + b"\n"


def _read_signature(folder: Path) -> tuple[str, bytes]:
    """Returns the id of the key and the signature, not verified yet."""
    try:
        data = read_signature(folder)
    except BundleError as error:
        raise SignatureError(error.reason) from error
    if data is None:
        raise SignatureError("missing: the bundle is not signed")
    try:
        fields = json.loads(data)
        version, signer, encoded = fields["format"], fields["key_id"], fields["signature"]
        signature = base64.b64decode(encoded, validate=True)
        named = _KEY_ID.fullmatch(signer)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise SignatureError("not a signature file") from error
    if version != FORMAT:
        raise SignatureError(
            f"format {version!r:.20}, this version reads format {FORMAT}; sign the bundle again"
        )
    if not named or data != _encode(signer, signature):
        raise SignatureError("not in the canonical encoding; sign the bundle again")
    return signer, signature
