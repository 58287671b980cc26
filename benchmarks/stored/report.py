"""Figures and tables of what a stored explanation costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.stored.study import StoredStudy

LIMIT_MS = 5.0
MEANINGS = {
    "empty": "an empty call",
    "stored": "a stored explanation",
    "missing": "a call for one that is not there",
}


def figures(study: StoredStudy) -> dict[str, Any]:
    """Percentiles in milliseconds."""
    calls = {name: percentiles(getattr(study, name)) for name in MEANINGS}
    file_mib = round(study.num_bytes / 2**20, 1)
    return {"calls": calls, "file_mib": file_mib, "rss_mib": round(study.rss_mib, 1)}


def summary(result: BenchmarkResult) -> str:
    """The table for the README."""
    return "\n".join(_summary(result))


def _summary(result: BenchmarkResult) -> Iterator[str]:
    found = result.figures
    yield "| over loopback, ms | p50 | p90 | p99 | limit of p99 |"
    yield "|---|---|---|---|---|"
    for name, meaning in MEANINGS.items():
        each = found["calls"][name]
        limit = f"{LIMIT_MS:g}" if name == "stored" else ""
        yield f"| {meaning} | {each['p50']:.2f} | {each['p90']:.2f} | {each['p99']:.2f} | {limit} |"
    yield ""
    yield (
        f"{result.settings['turns']:,} turns; a file of {found['file_mib']:g} MiB, on a server "
        f"with {found['rss_mib']:g} MiB of memory."
    )


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """The 50th, 90th and 99th, in milliseconds."""
    found = np.percentile(np.array(seconds) * 1e3, (50, 90, 99))
    return dict(zip(("p50", "p90", "p99"), np.round(found, 3).tolist(), strict=True))
