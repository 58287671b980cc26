"""Figures and table of a clocked training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.common.results import BenchmarkResult


def figures(
    rows: int,
    seconds: Mapping[str, tuple[float, float]],
    notes: Mapping[str, str],
    total_s: float,
    peak_mib: float,
) -> dict[str, Any]:
    """``seconds``: wall and CPU of each stage. The total includes reading the log."""
    stages = {
        name: {
            "wall_s": round(wall, 1),
            "cpu_s": round(cpu, 1),
            "rows_per_cpu_s": round(rows / max(cpu, 1e-9)),
            "note": notes[name],
        }
        for name, (wall, cpu) in seconds.items()
    }
    return {"stages": stages, "total_s": round(total_s, 1), "peak_mib": round(peak_mib)}


def summary(result: BenchmarkResult) -> str:
    """One row a stage."""
    settings, found = result.settings, result.figures
    lines = [
        f"{settings['rows']:,} rows, {settings['items']:,} items; the language model sees at most "
        f"{settings['lm_rows']:,} rows.",
        "",
        "| stage | wall | CPU | rows of the log per CPU-second |",
        "|---|---|---|---|",
    ]
    for name, stage in found["stages"].items():
        lines.append(
            f"| {name} | {stage['wall_s']:.0f} s | {stage['cpu_s']:.0f} s "
            f"| {stage['rows_per_cpu_s']:,} |"
        )
    minutes, gib = found["total_s"] / 60, found["peak_mib"] / 1024
    lines.append(f"| all | {minutes:.1f} min | | {gib:.1f} GiB at most |")
    return "\n".join(lines)
