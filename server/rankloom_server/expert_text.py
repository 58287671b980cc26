"""An expert's folder as text or JSON, for `rankloom bundle inspect`."""

from __future__ import annotations

import json
from pathlib import Path

from rankloom_adapters.bundle import MANIFEST, open_bundle
from rankloom_adapters.expert import Expert, ExpertError, check_alike, check_base
from rankloom_adapters.expert_report import ExpertReport, inspect_expert
from rankloom_adapters.norms import check_norms
from rankloom_ranker.loaded import base_digest, bundled_experts

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_MIB = 1 << 20


def describe_expert(folder: Path, bundle: Path | None, *, as_json: bool) -> str:
    """What is in an expert's folder, checked against a bundle if one is given.

    Raises ExpertError where a server would refuse it, and BundleError for the bundle.
    """
    name = folder.resolve().name
    if (folder / MANIFEST).exists():
        raise ExpertError(name, "a bundle, not an expert; give one of its folders experts/NAME")
    report = inspect_expert(name, folder)
    if bundle is not None:
        _check_against(report.expert, bundle)
    facts = _facts(report)
    if as_json:
        return json.dumps(facts, indent=2)
    width = max(map(len, facts))
    return "\n".join(f"{fact:<{width}}  {_shown(value)}" for fact, value in facts.items())


def _check_against(expert: Expert, folder: Path) -> None:
    """As when it is staged there in place of one of the bundle's own."""
    bundle = open_bundle(folder)
    others = [each.load() for each in bundled_experts(bundle, bundle.experts())]
    check_base(expert, base_digest(bundle))
    check_alike(expert, others)
    check_norms(expert, others)


def _facts(report: ExpertReport) -> dict[str, object]:
    return {
        "expert": report.expert.name,
        "digest": report.expert.digest,
        "base": report.base_name or None,
        "base_sha256": report.expert.base_digest,
        "rank": list(report.ranks),
        "alpha": list(report.alphas),
        "rslora": report.is_rank_stabilised,
        "scale": report.expert.scale,
        "modules": dict(report.modules),
        "dtype": [_DTYPES[dtype] for dtype in report.dtypes],
        "size_mib": round(report.num_bytes / _MIB, 3),
        "conversions": list(report.conversions),
    }


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} × {count}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return "not named" if value is None else str(value)
