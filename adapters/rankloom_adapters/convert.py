"""Converts a bundle of an earlier version; the weights and all other content stay the same.

Format 3 renamed a part of format 2, `gate.json` to `router.json`, and a field of the metadata,
`epoch` to `feature_version`. The events of users are left out: they belong to no bundle.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rankloom_adapters.bundle import (
    FORMAT,
    FORMER_EVENTS,
    MANIFEST,
    PREVIOUS_FORMAT,
    ROUTER,
    SIGNATURE,
    Bundle,
    BundleError,
    link_or_copy,
    open_bundle,
    read_signature,
    seal,
)

CONVERTED_FROM = "converted_from"
_PARTS = {"gate.json": ROUTER}
_METADATA = {"epoch": "feature_version"}


class ConversionError(ValueError):
    """The converted bundle cannot be written; the message names the folder and says why."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")


def convert(source: Path, target: Path, *, drop_signature: bool = False) -> str:
    """Writes the bundle in ``source`` to the new folder ``target``; returns its digest.

    The metadata names the digest of the source. Files are linked where the file system can,
    else copied; each is checked against the manifest of the source. A signature covers the old
    manifest and is lost, so a signed source needs ``drop_signature``. After a failure there is
    no ``target``. Raises BundleError for the source and ConversionError for the target.
    """
    bundle = _open(source)
    if read_signature(source) is not None and not drop_signature:
        raise BundleError(
            SIGNATURE,
            "the bundle is signed, and the signature is not valid after the conversion; "
            "repeat with --drop-signature, then sign the new bundle",
        )
    if target.resolve().is_relative_to(source.resolve()):
        raise ConversionError(target, f"is inside the bundle {source}; choose another folder")
    try:
        target.mkdir(parents=True)
    except FileExistsError as error:
        raise ConversionError(target, "exists already; choose a folder that is new") from error
    except OSError as error:
        raise ConversionError(target, f"cannot be created: {error.strerror}") from error
    try:
        return _write(bundle, target)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise ConversionError(target, f"cannot be written: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def has_events(source: Path) -> bool:
    """Whether an earlier bundle holds events of users, which a conversion leaves out."""
    return (source / FORMER_EVENTS).exists()


def _open(source: Path) -> Bundle:
    bundle = open_bundle(source, formats=(PREVIOUS_FORMAT, FORMAT))
    if bundle.format == FORMAT and FORMER_EVENTS not in bundle.parts:
        raise BundleError(MANIFEST, f"format {FORMAT} already; it needs no conversion")
    for old, new in _PARTS.items() if bundle.format == PREVIOUS_FORMAT else ():
        if {old, new} <= bundle.parts.keys():
            reason = f"lists both {old} and {new}; format {PREVIOUS_FORMAT} has {old} alone"
            raise BundleError(MANIFEST, reason)
    return bundle


def _write(bundle: Bundle, target: Path) -> str:
    for name in bundle.parts.keys() - {FORMER_EVENTS}:
        path = target / _PARTS.get(name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(bundle, name, path)
    renamed = {_METADATA.get(name, name): value for name, value in bundle.metadata.items()}
    metadata = renamed | {CONVERTED_FROM: bundle.digest}
    return seal(target, metadata)
