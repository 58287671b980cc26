"""Figures and tables of the training steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.results import BenchmarkResult

TITLES = {"alone": "alone", "beside_busy_process": "beside one busy process"}


def figures(
    waiting: Mapping[str, Mapping[str, Sequence[float]]], memory: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Medians and raw seconds; ratios of the ways to wait are to sleeping threads."""
    kept, returned = (statistics.median(memory[case]) for case in ("kept", "returned"))
    return {
        "waiting": {name: _waiting(times) for name, times in waiting.items()},
        "memory": {
            "returned_cpu_s": round(returned, 3),
            "kept_cpu_s": round(kept, 3),
            "returned_over_kept": round(returned / kept, 2),
        },
        "seconds": {
            "waiting": {name: dict(times) for name, times in waiting.items()},
            "memory": dict(memory),
        },
    }


def summary(result: BenchmarkResult) -> str:
    """Both tables."""
    lines = [
        "| seconds per step, two threads | sleeping | briefly, then sleeping | spinning |",
        "|---|---|---|---|",
    ]
    for name, row in result.figures["waiting"].items():
        times = f"{row['briefly_over_sleeping']:.2f} × | {row['spinning_over_sleeping']:.2f} ×"
        lines.append(f"| {TITLES[name]} | {row['sleeping_s']:.3f} s | {times} |")
    memory = result.figures["memory"]
    lines += [
        "",
        "| CPU-seconds per step, one thread | freed memory returned | kept | returned ÷ kept |",
        "|---|---|---|---|",
        f"| | {memory['returned_cpu_s']:.3f} | {memory['kept_cpu_s']:.3f} "
        f"| {memory['returned_over_kept']:.2f} |",
    ]
    return "\n".join(lines)


def _waiting(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    sleeping = statistics.median(times["sleeping"])
    ratios = {
        f"{way}_over_sleeping": round(statistics.median(seconds) / sleeping, 2)
        for way, seconds in times.items()
        if way != "sleeping"
    }
    return {"sleeping_s": round(sleeping, 3), **ratios}
