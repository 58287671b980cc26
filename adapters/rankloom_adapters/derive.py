"""Makes a bundle from another one: what does not change is shared, file by file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankloom_adapters.bundle import Bundle, expert_part, link_or_copy, seal
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE, ExpertError
from rankloom_adapters.expert_files import ExpertFiles

DERIVED_FROM = "derived_from"


def with_expert(bundle: Bundle, files: ExpertFiles, folder: Path) -> str:
    """Writes the bundle with this expert in place of its own of the same name; returns the digest.

    The metadata names the digest of ``bundle``. ``folder`` must be empty or not exist. Raises
    ExpertError where the bundle has no such expert, BundleError where a part is damaged, and
    OSError.
    """
    name = files.expert.name
    replaced = {
        expert_part(name, CONFIG_FILE): files.config,
        expert_part(name, WEIGHTS_FILE): files.weights,
    }
    if not replaced.keys() <= bundle.parts.keys():
        known = ", ".join(bundle.experts())
        raise ExpertError(name, f"the bundle has no such expert; it has {known}")
    return with_parts(bundle, replaced, folder, {})


def with_parts(
    bundle: Bundle, given: Mapping[str, bytes], folder: Path, metadata: Mapping[str, Any]
) -> str:
    """Writes the bundle with these parts, replaced or new; returns the digest.

    The metadata are those of ``bundle`` and the given ones, and name its digest. ``folder`` must be
    empty or not exist. Raises BundleError where a part is damaged, and OSError.
    """
    for part in sorted(bundle.parts.keys() | given.keys()):
        path = folder / part
        path.parent.mkdir(parents=True, exist_ok=True)
        if part in given:
            path.write_bytes(given[part])
        else:
            link_or_copy(bundle, part, path)
    return seal(folder, {**bundle.metadata, **metadata, DERIVED_FROM: bundle.digest})
