"""Figures and the table of what features cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.features.study import FeaturesStudy

# name → (dividend, divisor, limit, whether it is the least, meaning)
RATIOS = {
    "throughput_over_session": ("session", "encode", 0.9, True, "user vectors ÷ bare onnxruntime"),
    "one_user_over_empty": ("one_user", "empty", 2.0, False, "one user's features ÷ an empty call"),
    "many_users_over_one": ("many_users", "one_user", 25.0, False, "256 users in a call ÷ one"),
}
EVENT_LIMIT_MS = 50.0
EVENTS_PER_S = 20_000


def figures(study: FeaturesStudy) -> dict[str, Any]:
    """Medians in milliseconds, and their ratios."""
    medians = {name: 1e3 * statistics.median(values) for name, values in asdict(study).items()}
    return {
        "median_ms": {name: round(value, 4) for name, value in medians.items()},
        "p95_ms": {name: round(1e3 * _p95(v), 4) for name, v in asdict(study).items()},
        **{
            name: round(medians[above] / medians[below], 3)
            for name, (above, below, *_) in RATIOS.items()
        },
        "recorded_per_s": round(1 / statistics.median(study.record_event)),
    }


def summary(result: BenchmarkResult) -> str:
    """The ratios, for the README."""
    return "\n".join(_summary(result))


def _summary(result: BenchmarkResult) -> Iterator[str]:
    figures = result.figures
    yield "| figure | | limit | meaning |"
    yield "|---|---|---|---|"
    for name, (_, _, limit, is_least, meaning) in RATIOS.items():
        sign = "≥" if is_least else "≤"
        yield f"| `{name}` | {figures[name]:.2f} | {sign} {limit:g} | {meaning} |"
    event, record = (figures["median_ms"][name] for name in ("event_to_ranking", "record"))
    yield (
        f"| `event_to_ranking_ms` | {event:.1f} | ≤ {EVENT_LIMIT_MS:g} | from RecordEvents to the "
        f"answer of the next ranking (durable after {record:.1f}) |"
    )
    if "recorded_per_s" not in figures:
        return  # an older result
    yield (
        f"| `recorded_per_s` | {figures['recorded_per_s']:,} | ≥ {EVENTS_PER_S:,} | events "
        "that are durable a second, in calls of 1,000 |"
    )


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]
