"""From a bundle's folder to the parts of a server; takes seconds, and blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle, BundleError, open_bundle
from rankloom_adapters.signing import KeyFileError, Keyring
from rankloom_features.loading import provider_from_bytes, statistics_from_bytes
from rankloom_features.provider import FeatureProvider
from rankloom_server.config import Settings
from rankloom_server.errors import ConfigError, StartError


@dataclass(frozen=True, slots=True, eq=False)
class FeatureParts:
    """A bundle's own features. ``popularity``: (items,) training rows of each item."""

    bundle: Bundle
    provider: FeatureProvider
    popularity: NDArray[np.float32]


FEATURE_PARTS = (
    parts.CATALOGUE,
    parts.EVENTS,
    parts.ENCODER,
    parts.ITEM_VECTORS,
    parts.ITEM_STATISTICS,
)


def keyring_of(settings: Settings) -> Keyring | None:
    """The keys that bundles must be signed by; None: any bundle will do. Raises ConfigError."""
    try:
        return Keyring.from_files(settings.bundle_keys) if settings.bundle_keys else None
    except KeyFileError as error:
        raise ConfigError([f"bundle_keys: {error}"]) from error


def load_features(folder: Path, keyring: Keyring | None = None) -> FeatureParts:
    """Opens a bundle and loads what features need. Raises StartError, also for its signature."""
    try:
        bundle = open_bundle(folder)
        if keyring is not None:
            keyring.check(bundle)
        return features_of(bundle)
    except ValueError as error:
        raise StartError(f"{folder}: {error}") from error


def features_of(bundle: Bundle) -> FeatureParts:
    """Loads what features need. Raises StartError, which names the folder."""
    try:
        statistics = bundle.read(parts.ITEM_STATISTICS)
        provider = provider_from_bytes(
            catalogue=bundle.read(parts.CATALOGUE),
            events=bundle.read(parts.EVENTS),
            encoder=bundle.read(parts.ENCODER),
            item_vectors=bundle.read(parts.ITEM_VECTORS),
            item_statistics=statistics,
        )
        if not len(provider.catalogue):
            raise BundleError(parts.CATALOGUE, "holds no item")
        rows = statistics_from_bytes(statistics, len(provider.catalogue)).rows
    except ValueError as error:
        raise StartError(f"{bundle.folder}: {error}") from error
    return FeatureParts(bundle, provider, rows)
