"""Figures and table of trainings on logs of several sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.results import BenchmarkResult

Costs = Mapping[str, Mapping[str, Any]]  # step → its StepCost


def figures(sizes: Sequence[int], costs: Sequence[Costs]) -> dict[str, Any]:
    """``costs``: of each size, ascending, at least two."""
    steps = {
        step: {
            "cpu_s": [round(each[step]["cpu_s"], 2) for each in costs],
            "wall_s": [round(each[step]["wall_s"], 2) for each in costs],
            "peak_mib": [round(each[step]["peak_mib"]) for each in costs],
            "notes": [each[step]["note"] for each in costs],
            "exponent": round(exponent(sizes, [each[step]["cpu_s"] for each in costs]), 2),
        }
        for step in costs[0]
    }
    peaks = [max(each[step]["peak_mib"] for step in each) for each in costs]
    more_bytes, more_rows = (peaks[-1] - peaks[-2]) * 2**20, sizes[-1] - sizes[-2]
    return {"rows": list(sizes), "steps": steps, "bytes_per_row": round(more_bytes / more_rows)}


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Of growth from the last size but one to the last: b of seconds = a · rows^b."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def summary(result: BenchmarkResult) -> str:
    """One row a step: CPU-seconds and peak memory of each size, and the exponent."""
    found = result.figures
    titles = [f"{rows:,} rows" for rows in found["rows"]]
    lines = [
        f"| step: CPU, peak memory | {' | '.join(titles)} | exponent |",
        "|---" * (len(titles) + 2) + "|",
    ]
    lines += [_row(name, step) for name, step in found["steps"].items()]
    last, before = titles[-1], titles[-2]
    lines += ["", f"From {before} to {last}, a row takes {found['bytes_per_row']:,} bytes more."]
    return "\n".join(lines)


def _row(name: str, step: Mapping[str, Any]) -> str:
    cells = [
        f"{cpu:.1f} s, {mib / 1024:.2f} GiB"
        for cpu, mib in zip(step["cpu_s"], step["peak_mib"], strict=True)
    ]
    return f"| {name} | {' | '.join(cells)} | {step['exponent']:.2f} |"
