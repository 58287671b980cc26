"""The keys that a server trusts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankloom_adapters.signing import KeyFileError, Keyring
from rankloom_server.errors import ConfigError


def keyring_of(bundle_keys: Sequence[Path]) -> Keyring | None:
    """The keys of these files. None without any: signatures are not checked. Raises ConfigError."""
    try:
        return Keyring.from_files(bundle_keys) if bundle_keys else None
    except KeyFileError as error:
        raise ConfigError([f"bundle_keys: {error}"]) from error
