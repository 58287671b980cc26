"""Figures and tables of a server under more calls than it can answer."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.overload.study import OverloadRun, OverloadStudy

MIN_GOODPUT = 0.9
CODES = {"OK": "answered", "RESOURCE_EXHAUSTED": "refused", "DEADLINE_EXCEEDED": "too late"}


def figures(study: OverloadStudy) -> dict[str, Any]:
    """Medians of each load, and every run."""
    loads = sorted({each.load for each in study.runs})
    of_load = {load: [each for each in study.runs if each.load == load] for load in loads}
    return {
        "goodput_over_peak": {
            f"{load:g}": round(statistics.median(each.goodput_over_peak for each in runs), 3)
            for load, runs in of_load.items()
        },
        "runs": [_run(each) for each in study.runs],
    }


def summary(result: BenchmarkResult) -> str:
    """Goodput by load, for the README."""
    return "\n".join(_summary(result))


def tables(result: BenchmarkResult) -> str:
    """The summary, and every run."""
    return "\n\n".join(["\n".join(_runs(result)), summary(result)])


def _summary(result: BenchmarkResult) -> Iterator[str]:
    yield "| load ÷ peak | goodput ÷ peak | limit | answered | refused | p99 of a refusal, ms |"
    yield "|---|---|---|---|---|---|"
    for load, ratio in result.figures["goodput_over_peak"].items():
        runs = [each for each in result.figures["runs"] if f"{each['load']:g}" == load]
        answered, refused = (_share(runs, code) for code in ("OK", "RESOURCE_EXHAUSTED"))
        p99 = max(each["refusal_p99_ms"] for each in runs)
        yield f"| {load} | {ratio:.2f} | {MIN_GOODPUT:g} | {answered} | {refused} | {p99:g} |"


def _share(runs: list[dict[str, Any]], code: str) -> str:
    """Of all calls, how many ended so."""
    counts = [each["codes"] for each in runs]
    found = sum(each.get(code, 0) for each in counts)
    return f"{found / sum(sum(each.values()) for each in counts):.0%}"


def _runs(result: BenchmarkResult) -> Iterator[str]:
    yield f"| load | peak, calls/s | goodput, calls/s | {' | '.join(CODES.values())} | p50, ms |"
    yield "|---|---|---|---|---|---|---|"
    for each in result.figures["runs"]:
        counts = " | ".join(str(each["codes"].get(code, 0)) for code in CODES)
        yield (
            f"| {each['load']:g} | {each['peak']:.1f} | {each['goodput']:.1f} | {counts} | "
            f"{each['answer_p50_ms']:g} |"
        )


def _run(run: OverloadRun) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "load": run.load,
        "peak": round(run.peak, 2),
        "goodput": round(outcome.goodput, 2),
        "codes": outcome.codes,
        "answer_p50_ms": _percentile_ms(outcome.seconds_to("OK"), 50),
        "refusal_p99_ms": _percentile_ms(outcome.seconds_to("RESOURCE_EXHAUSTED"), 99),
    }


def _percentile_ms(seconds: list[float], percent: float) -> float:
    return round(1e3 * float(np.percentile(seconds, percent)), 1) if seconds else 0.0
