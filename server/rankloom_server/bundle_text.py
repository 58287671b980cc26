"""A bundle's folder as text or JSON, for `rankloom bundle inspect`: its parts by digest."""

from __future__ import annotations

import json
from pathlib import Path

from rankloom_adapters.bundle import Bundle, open_bundle, read_signature
from rankloom_adapters.derive import DERIVED_FROM

_MIB = 1 << 20
_SHOWN = 12  # characters of a digest


def describe_bundle(folder: Path, *, as_json: bool) -> str:
    """What a bundle's manifest says: the version of each part is its digest. Raises BundleError.

    The parts themselves are not read; `rankloom bundle verify` compares them.
    """
    bundle = open_bundle(folder)
    facts = _facts(bundle, is_signed=read_signature(folder) is not None)
    if as_json:
        return json.dumps({**facts, "parts": _parts(bundle)}, indent=2)
    width = max(map(len, (*facts, *bundle.parts)))
    head = [f"{name:<{width}}  {value}" for name, value in facts.items()]
    return "\n".join([*head, "", *(_line(bundle, name, width) for name in sorted(bundle.parts))])


def _facts(bundle: Bundle, *, is_signed: bool) -> dict[str, str]:
    return {
        "bundle": bundle.digest,
        "derived_from": str(bundle.metadata.get(DERIVED_FROM, "none")),
        "signed": "yes" if is_signed else "no",
        "experts": ", ".join(bundle.experts()) or "none",
    }


def _parts(bundle: Bundle) -> dict[str, dict[str, object]]:
    return {
        name: {"sha256": part.sha256, "bytes": part.num_bytes}
        for name, part in sorted(bundle.parts.items())
    }


def _line(bundle: Bundle, name: str, width: int) -> str:
    part = bundle.parts[name]
    return f"{name:<{width}}  {part.sha256[:_SHOWN]}  {part.num_bytes / _MIB:9.3f} MiB"
