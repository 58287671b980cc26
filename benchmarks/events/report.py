"""Figures and table of the event store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.results import BenchmarkResult
from benchmarks.common.timing import Spread

if TYPE_CHECKING:
    from benchmarks.events.study import EventStudy

MIN_RATE, MAX_READ_MS, MAX_MIB, MAX_START_S = 20_000, 5.0, 1_024, 5.0


def figures(study: EventStudy, batch: int, single: int) -> dict[str, Any]:
    """Rates are of the median round; ``batch``, ``single``: events of a round."""
    reading, counts = study.reading, {"store": batch, "bare": batch, "making": batch}
    rates = {
        name: round(counts.get(name, single) / Spread.of([cost.wall_s for cost in costs]).median)
        for name, costs in study.costs.items()
    }
    return {
        "store": asdict(study.statistics),
        "generated_s": round(study.generated_s, 1),
        "statistics_s": round(study.statistics_s, 2),
        "start_s": round(reading["start_s"], 3),
        "mib": {name: round(reading[f"{name}_mib"], 1) for name in ("before", "after")},
        **{name: _tail(reading[name]) for name in ("read_ms", "version_ms", "bare_ms")},
        "rates": rates,
        "cpu_s": {
            name: Spread.of([cost.cpu_s for cost in costs]).median
            for name, costs in study.costs.items()
        },
        "forget_s": asdict(Spread.of(study.forget_s)),
    }


def _tail(values: Sequence[float]) -> dict[str, float]:
    return {f"p{part}": round(float(np.percentile(values, part)), 3) for part in (50, 99, 100)}


def summary(result: BenchmarkResult) -> str:
    """What was measured, the limit, and the reference of the same run."""
    found = result.figures
    store, rates, read, bare = (found[name] for name in ("store", "rates", "read_ms", "bare_ms"))
    size = f"{store['num_events']:,} events of {store['num_users']:,} users"
    return "\n".join(
        [
            f"| {size}, {store['num_bytes'] / 2**30:.2f} GiB | | limit | reference |",
            "|---|---|---|---|",
            f"| a history, p50 | {read['p50']} ms | | bare SELECT: {bare['p50']} ms |",
            f"| a history, p99 | {read['p99']} ms | {MAX_READ_MS:.0f} ms "
            f"| bare SELECT: {bare['p99']} ms |",
            f"| a version, p99 | {found['version_ms']['p99']} ms | | |",
            f"| open and first history | {found['start_s']} s | {MAX_START_S:.0f} s | |",
            f"| memory of the process | {found['mib']['after']} MiB | {MAX_MIB:,} MiB "
            f"| before opening: {found['mib']['before']} MiB |",
            f"| events/s, durable, 1,000 per call | {rates['store']:,} | {MIN_RATE:,} "
            f"| rows without a key: {rates['bare']:,} |",
            f"| events/s, durable, one per call, 8 threads | {rates['threads']:,} | "
            f"| one thread: {rates['one_thread']:,}; syncs/s: {rates['fsync']:,} |",
            f"| forget a user, median | {found['forget_s']['median']} s | | |",
        ]
    )
