"""Figures and tables of the swaps."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.results import BenchmarkResult
from benchmarks.swap.checker import FAULTS

if TYPE_CHECKING:
    from benchmarks.swap.study import SwapStudy
    from benchmarks.swap.watcher import SwapPhase

MAX_P99_RATIO = 1.25
GROWTH_SHARE, GROWTH_MIB = 0.02, 8.0
NUM_POINTS = 20  # of resident memory over the run


def figures(study: SwapStudy) -> dict[str, Any]:
    """Everything that was found."""
    checker, prints = study.checker, study.checker.fingerprints
    rss = [each.rss_mib for each in study.resources]
    first, *_, last = _medians(rss, 10)
    p99 = [float(np.percentile(each.latencies, 99)) for each in (study.swapping, study.calm)]
    return {
        "swaps": study.plan.swaps,
        **checker.counts,
        "p99_ratio": round(p99[0] / p99[1], 3),
        "rss_first_mib": round(first, 1),
        "rss_last_mib": round(last, 1),
        "rss_growth_mib": round(last - first, 2),
        "rss_growth_bound_mib": round(GROWTH_SHARE * first + GROWTH_MIB, 2),
        "rss_mib": [round(each, 1) for each in _medians(rss, NUM_POINTS)],
        "fds": _range(each.fds for each in study.resources),
        "threads": _range(each.threads for each in study.resources),
        "bundles": study.num_bundles,
        "answers": checker.num_answers,
        "largest_noise": checker.largest_noise,
        "fingerprints_compared": prints.num_compared,
        "smallest_difference": prints.smallest_difference,
        "swapping": _phase(study.swapping),
        "calm": _phase(study.calm),
        "verbs": {verb: _percentiles(seconds) for verb, seconds in study.verbs.items()},
        "experts": study.experts,
        "examples": checker.examples,
    }


def summary(result: BenchmarkResult) -> str:
    """What was found beside the limit for it, for the README."""
    return "\n".join(_summary(result.figures))


def tables(result: BenchmarkResult) -> str:
    """The summary, fingerprints, latencies and verbs."""
    found = result.figures
    return "\n\n".join("\n".join(rows) for rows in (_summary(found), _details(found)))


def _summary(found: Mapping[str, Any]) -> Iterator[str]:
    swapping, calm = found["swapping"], found["calm"]
    yield "| | | limit |"
    yield "|---|---|---|"
    yield f"| swaps; answers checked | {found['swaps']:,}; {found['answers']:,} | |"
    names = ", ".join(fault.replace("_", " ") for fault in FAULTS)
    yield f"| {names} | {', '.join(str(found[fault]) for fault in FAULTS)} | all 0 |"
    p99 = f"{found['p99_ratio']:.2f} ({swapping['p99_ms']:g} and {calm['p99_ms']:g} ms)"
    yield f"| p99 while swapping ÷ without | {p99} | {MAX_P99_RATIO} |"
    gaps = f"{swapping['gap_ms']:g} and {calm['gap_ms']:g} ms"
    yield f"| longest gap without an answer, swapping and without | {gaps} | |"
    rss = f"{found['rss_first_mib']:.1f}, {found['rss_last_mib']:.1f} MiB"
    growth = f"{found['rss_growth_mib']:+.1f} | {found['rss_growth_bound_mib']:+.1f}"
    yield f"| resident memory, first and last tenth | {rss}: {growth} |"
    fds, threads = (" to ".join(map(str, found[name])) for name in ("fds", "threads"))
    yield f"| file descriptors; threads | {fds}; {threads} | constant |"
    yield f"| bundles kept at the end | {found['bundles']} | 1 |"
    verbs = ", ".join(f"{verb} {each['p50_ms']:g}" for verb, each in found["verbs"].items())
    yield f"| p50 of commands, ms | {verbs} | |"


def _details(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"Largest difference of a score from its revision's: {found['largest_noise']:.1e}."
    yield (
        f"Smallest difference between two revisions, {found['fingerprints_compared']:,} compared: "
        f"{found['smallest_difference']:.1e}."
    )
    for name in ("swapping", "calm"):
        phase = found[name]
        times = f"p50 {phase['p50_ms']:g}, p99 {phase['p99_ms']:g} ms"
        yield f"{name.capitalize()}: {phase['calls']:,} calls in {phase['seconds']:g} s, {times}."
    verbs = ", ".join(f"{verb} {each['p99_ms']:g}" for verb, each in found["verbs"].items())
    yield f"p99 of commands, ms: {verbs}."


def _phase(phase: SwapPhase) -> dict[str, float]:
    return {
        **_percentiles(phase.latencies),
        "gap_ms": round(1e3 * phase.longest_gap_s, 1),
        "calls": len(phase.latencies),
        "seconds": round(phase.seconds, 1),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


def _medians(values: Sequence[float], num_parts: int) -> list[float]:
    """Medians of ``num_parts`` equal parts in order, or of as many as there are values."""
    parts = np.array_split(np.asarray(values), min(num_parts, len(values)))
    return [statistics.median(part.tolist()) for part in parts]


def _range(values: Iterable[int]) -> tuple[int, int]:
    found = list(values)
    return min(found), max(found)
