"""Figures and the table of freshness and swaps."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.retrieve.freshness import FreshnessStudy
    from benchmarks.retrieve.swaps import SwapCounts

MAX_FRESH_MS = 1_000


def figures(fresh: FreshnessStudy, swaps: SwapCounts) -> dict[str, Any]:
    """Percentiles in milliseconds, and counts."""
    p50, p99 = (round(1e3 * float(np.percentile(fresh.seconds, share)), 2) for share in (50, 99))
    return {
        "events": len(fresh.seconds),
        "fresh_ms": {"p50": p50, "p99": p99, "most": round(1e3 * max(fresh.seconds), 2)},
        "most_calls": max(fresh.calls),
        "swaps": {name: value for name, value in asdict(swaps).items() if name != "examples"},
    }


def summary(result: BenchmarkResult) -> str:
    """The table for the README."""
    found, fresh, swaps = (
        result.figures,
        result.figures["fresh_ms"],
        result.figures["swaps"],
    )
    rows = (
        ("", "", "limit"),
        ("---", "---", "---"),
        (
            f"{found['events']} events, each until a `Retrieve` reflects it: p50, p99, most",
            f"{fresh['p50']:.1f}, {fresh['p99']:.1f}, {fresh['most']:.1f} ms",
            f"{MAX_FRESH_MS:,} ms",
        ),
        ("calls of `Retrieve` until then, at most", str(found["most_calls"]), "1"),
        (
            "swaps; retrievals and recommendations checked",
            f"{swaps['swaps']}; {swaps['retrievals']:,} and {swaps['recommendations']:,}",
            "",
        ),
        (
            "failed, mixed, stale",
            f"{swaps['failed']}, {swaps['mixed']}, {swaps['stale']}",
            "all 0",
        ),
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
