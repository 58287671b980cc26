"""Figures and tables of rankings under faults, and of what each fallback level is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.faults.levels import LevelFigures
    from benchmarks.faults.study import FaultFigures

SHARE_LIMIT, OPEN_LIMIT_MS, BACK_LIMIT_S = 0.30, 5.0, 5.0


def figures(
    faults: Mapping[str, FaultFigures], levels: Mapping[str, LevelFigures]
) -> dict[str, Any]:
    """All that was found."""
    return {
        "faults": {name: asdict(found) for name, found in faults.items()},
        "levels": {name: asdict(found) for name, found in levels.items()},
    }


def summary(result: BenchmarkResult) -> str:
    """Both tables, for the README."""
    return "\n".join(_summary(result.figures))


def _summary(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| feature service | answered in time | by | features, share of the deadline "
        "| ms, breaker open | back after, s |"
    )
    yield "|---|---|---|---|---|---|"
    for name, fault in found["faults"].items():
        yield _fault_row(name, fault)
    limits = f"≤ {SHARE_LIMIT:.0%} | ≤ {OPEN_LIMIT_MS:g} | ≤ {BACK_LIMIT_S:g}"
    yield f"| *limit* | *all* | | {limits} |"
    yield ""
    yield "| fallback level | NDCG@10 | less popularity |"
    yield "|---|---|---|"
    for name, level in found["levels"].items():
        yield f"| `{name}` | {level['ndcg10']:.4f} | {_interval(level['over_popularity'])} |"


def _fault_row(name: str, fault: Mapping[str, Any]) -> str:
    answers = "; ".join(f"`{answer}` {count}" for answer, count in fault["answers"].items())
    open_ms = "" if fault["open_ms"] is None else f"{fault['open_ms']:.2g}"
    return (
        f"| {name} | {fault['in_time']} of {fault['num']} | {answers} "
        f"| {100 * fault['feature_share']:.1f} % | {open_ms} | {fault['back_s']:.2f} |"
    )


def _interval(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return ""
    value, low, high = (f"{estimate[name]:+.4f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
