"""Figures and tables of experts by domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.domains.study import DomainsStudy


def figures(study: DomainsStudy) -> dict[str, Any]:
    """All that was found."""
    return asdict(study)


def summary(result: BenchmarkResult) -> str:
    """AUC by domain, for the README."""
    return "\n".join(_summary(result.figures))


def _summary(found: Mapping[str, Any]) -> Iterator[str]:
    tables = {**found["two"], **{f"{name}, added": t for name, t in found["added"].items()}}
    scores = list(next(iter(tables.values()))["auc"])
    yield f"| AUC of test rows | rows | {' | '.join(scores)} | served − global |"
    yield "|---" * (len(scores) + 3) + "|"
    for name, table in tables.items():
        aucs = " | ".join(_short(table["auc"][score]) for score in scores)
        yield f"| {name} | {table['rows']} | {aucs} | {_interval(table['served_less_global'])} |"
    yield ""
    yield (
        "*Global* is also what games are answered with before they have an expert. Adding them "
        f"changed no served score of the others by more than {found['largest_change']:.0e}."
    )


def _short(value: float) -> str:
    return f"{value:.4f}".lstrip("0")


def _interval(estimate: Mapping[str, float]) -> str:
    value, low, high = (f"{estimate[name]:+.4f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
