"""Figures and table of a clocked training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.common.results import BenchmarkResult
from benchmarks.common.timing import Spread

# Stages of the language model: their work is tokens, and not rows of the log.
LANGUAGE: Final = ("base", "global", "groups", "calibrate")
GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class StageCost:
    """Seconds, FLOPs and embedding rows of a stage, and what it noted last."""

    wall_s: float
    cpu_s: float
    flops: int
    embedded: int
    note: str


def figures(
    rows: int,
    costs: Mapping[str, StageCost],
    roofline: Sequence[float],
    total_s: float,
    peak_mib: float,
) -> dict[str, Any]:
    """``roofline``: FLOPs per CPU-second, by round. The total includes reading the log."""
    best = max(roofline)
    return {
        "stages": {name: _stage(name, cost, rows, best) for name, cost in costs.items()},
        "roofline_gflops": asdict(Spread.of([each / GIGA for each in roofline], digits=1)),
        "total_s": round(total_s, 1),
        "peak_mib": round(peak_mib),
    }


def _stage(name: str, cost: StageCost, rows: int, roofline: float) -> dict[str, Any]:
    cpu_s = max(cost.cpu_s, 1e-9)
    found = {
        "wall_s": round(cost.wall_s, 1),
        "cpu_s": round(cost.cpu_s, 1),
        "rows_per_cpu_s": round(rows / cpu_s),
        "note": cost.note,
    }
    if name in LANGUAGE:
        found["tokens_per_cpu_s"] = round(cost.embedded / cpu_s)
    if cost.flops:
        found["gflops"] = round(cost.flops / cpu_s / GIGA, 2)
        found["of_roofline"] = round(cost.flops / cpu_s / roofline, 3)
    return found


def summary(result: BenchmarkResult) -> str:
    """One row a stage; a stage without matrix products in torch has no share of the roofline."""
    settings, found = result.settings, result.figures
    lines = [
        f"{settings['rows']:,} rows, {settings['items']:,} items; the language model sees at most "
        f"{settings['lm_rows']:,} rows.{_roofline(found)}",
        "",
        "| stage | wall | CPU | per CPU-second | GFLOP/s | of the roofline |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(name, stage) for name, stage in found["stages"].items()]
    minutes, gib = found["total_s"] / 60, found["peak_mib"] / 1024
    lines.append(f"| all | {minutes:.1f} min | | {gib:.1f} GiB at most | | |")
    return "\n".join(lines)


def _row(name: str, stage: Mapping[str, Any]) -> str:
    unit = "tokens" if "tokens_per_cpu_s" in stage else "rows"
    share = f"{stage['gflops']:.1f} | {stage['of_roofline']:.0%}" if "gflops" in stage else "|"
    return (
        f"| {name} | {stage['wall_s']:.0f} s | {stage['cpu_s']:.0f} s "
        f"| {stage[f'{unit}_per_cpu_s']:,} {unit} | {share} |"
    )


def _roofline(found: Mapping[str, Any]) -> str:
    if "roofline_gflops" not in found:
        return ""
    return (
        f" Plain float32 matrix products: {found['roofline_gflops']['most']:.0f} GFLOP/s per "
        "CPU-second."
    )
