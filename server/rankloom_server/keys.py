"""The keys that a server trusts."""

from __future__ import annotations

from rankloom_adapters.signing import KeyFileError, Keyring
from rankloom_server.config import Settings
from rankloom_server.errors import ConfigError


def keyring_of(settings: Settings) -> Keyring | None:
    """The keys that bundles must be signed by; None: any bundle will do. Raises ConfigError."""
    try:
        return Keyring.from_files(settings.bundle_keys) if settings.bundle_keys else None
    except KeyFileError as error:
        raise ConfigError([f"bundle_keys: {error}"]) from error
