"""Figures and table of the event store."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.results import BenchmarkResult
from benchmarks.common.timing import Cost, Spread

if TYPE_CHECKING:
    from benchmarks.events.study import EventStudy

MIN_RATE, MAX_READ_MS, MAX_MIB, MAX_START_S = 20_000, 5.0, 1_024, 5.0


def figures(study: EventStudy, batch: int, single: int) -> dict[str, Any]:
    """Rates are of the median round; ``batch``, ``single``: events of a round."""
    reading, counts = study.reading, {"store": batch, "bare": batch, "making": batch}
    rates = {name: _rates(counts.get(name, single), costs) for name, costs in study.costs.items()}
    return {
        "store": asdict(study.statistics),
        "generated_s": round(study.generated_s, 1),
        "statistics_s": round(study.statistics_s, 2),
        "start_s": round(reading["start_s"], 3),
        "mib": {name: round(reading[f"{name}_mib"], 1) for name in ("before", "after")},
        **{name: _tail(reading[name]) for name in ("read_ms", "version_ms", "bare_ms")},
        "rates": rates,
        "forget_s": asdict(Spread.of(study.forget_s)),
    }


def _rates(count: int, costs: Sequence[Cost]) -> dict[str, int]:
    """Events per second on the wall and of CPU."""
    return {
        "wall_s": round(count / statistics.median(cost.wall_s for cost in costs)),
        "cpu_s": round(count / statistics.median(cost.cpu_s for cost in costs)),
    }


def _tail(times: Sequence[tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Percentiles of milliseconds on the wall and of CPU."""
    found = np.percentile(np.array(times), (50, 99, 100), axis=0).round(3).tolist()
    return {
        f"p{part}": {"wall": wall, "cpu": cpu}
        for part, (wall, cpu) in zip((50, 99, 100), found, strict=True)
    }


def summary(result: BenchmarkResult) -> str:
    """What was measured, the limit, and the reference of the same run."""
    found = result.figures
    store, rates, read, bare = (found[name] for name in ("store", "rates", "read_ms", "bare_ms"))
    size = f"{store['num_events']:,} events of {store['num_users']:,} users"
    return "\n".join(
        [
            f"| {size}, {store['num_bytes'] / 2**30:.2f} GiB | | of CPU | limit | reference |",
            "|---|---|---|---|---|",
            f"| a history, p50, ms | {_both(read['p50'])} | | bare SELECT: {bare['p50']['wall']} |",
            f"| a history, p99, ms | {_both(read['p99'])} | {MAX_READ_MS:.0f} "
            f"| bare SELECT: {bare['p99']['wall']} |",
            f"| a version, p99, ms | {_both(found['version_ms']['p99'])} | | |",
            f"| open and first history, s | {found['start_s']} | | {MAX_START_S:.0f} | |",
            f"| memory of the process, MiB | {found['mib']['after']} | | {MAX_MIB:,} "
            f"| before opening: {found['mib']['before']} |",
            f"| events/s, 1,000 per call | {_rate(rates['store'])} | {MIN_RATE:,} "
            f"| rows without a key: {rates['bare']['wall_s']:,} |",
            f"| events/s, one per call, 8 threads | {_rate(rates['threads'])} | | one thread: "
            f"{rates['one_thread']['wall_s']:,}; syncs/s: {rates['fsync']['wall_s']:,} |",
            f"| forget a user, median, s | {found['forget_s']['median']} | | | |",
        ]
    )


def _both(times: dict[str, float]) -> str:
    return f"{times['wall']} | {times['cpu']}"


def _rate(rates: dict[str, int]) -> str:
    return f"{rates['wall_s']:,} | {rates['cpu_s']:,}"
