"""The table and the figures of the swaps."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
from swap_check import MIN_DIFFERENCE, TOLERANCE
from swap_study import Study
from swap_watch import Phase

MAX_P99_RATIO = 1.25
GROWTH_SHARE, GROWTH_MIB = 0.02, 8.0
NUM_POINTS = 20  # of resident memory over the run


def figures(study: Study) -> dict[str, object]:
    """Everything that was found, as it goes into the JSON file."""
    checker, prints = study.checker, study.checker.fingerprints
    return {
        "swaps": study.plan.swaps,
        **checker.counts,
        "p99_ratio": round(p99_ratio(study), 3),
        "rss_growth_mib": round(growth_mib(study), 2),
        "rss_growth_bound_mib": round(_bound_mib(study), 2),
        "rss_mib": [round(each, 1) for each in _medians(_rss(study), NUM_POINTS)],
        "fds": _range(each.fds for each in study.holdings),
        "threads": _range(each.threads for each in study.holdings),
        "bundles": study.num_bundles,
        "answers": checker.num_answers,
        "largest_noise": checker.largest_noise,
        "fingerprints_compared": prints.num_compared,
        "smallest_difference": prints.smallest_difference,
        "swapping": _figures(study.swapping),
        "calm": _figures(study.calm),
        "verbs": {verb: _percentiles(seconds) for verb, seconds in study.verbs.items()},
        "experts": study.experts,
        "plan": {**asdict(study.plan), "warm_up": study.plan.warm_up},
        "examples": checker.examples,
    }


def table(title: str, study: Study) -> str:
    """Markdown: what was found and what may be, and what each verb took."""
    tables = (_answers(title, study), _costs(study), _verbs(study))
    return "\n\n".join("\n".join(each) for each in tables)


def p99_ratio(study: Study) -> float:
    """The 99th percentile of all calls while experts were swapped, over that without."""
    swapping, calm = (np.percentile(each.latencies, 99) for each in (study.swapping, study.calm))
    return float(swapping / calm)


def growth_mib(study: Study) -> float:
    """Resident memory in the last tenth of the run, less that in the first; medians."""
    first, *_, last = _medians(_rss(study), 10)
    return last - first


def _answers(title: str, study: Study) -> Iterator[str]:
    checker, prints = study.checker, study.checker.fingerprints
    yield f"| {title} | | may be |"
    yield "|---|---|---|"
    yield f"| swaps; answers checked | {study.plan.swaps:,}; {checker.num_answers:,} | |"
    for fault, num in checker.counts.items():
        yield f"| {fault.replace('_', ' ')} | {num} | 0 |"
    yield f"| score − its revision's, at most | {checker.largest_noise:.1e} | {TOLERANCE:g} |"
    told = f"one revision's scores − another's, at least, {prints.num_compared:,} times"
    yield f"| {told} | {prints.smallest_difference:.1e} | over {MIN_DIFFERENCE:g} |"


def _costs(study: Study) -> Iterator[str]:
    swapping, calm = _figures(study.swapping), _figures(study.calm)
    yield "| | swapping | without | ratio, growth | may be |"
    yield "|---|---|---|---|---|"
    yield f"| calls | {swapping['calls']:,} | {calm['calls']:,} | | |"
    yield f"| p50 in ms | {swapping['p50_ms']} | {calm['p50_ms']} | | |"
    ratio = f"{p99_ratio(study):.3f} | {MAX_P99_RATIO}"
    yield f"| p99 in ms | {swapping['p99_ms']} | {calm['p99_ms']} | {ratio} |"
    yield f"| longest time without an answer, ms | {swapping['gap_ms']} | {calm['gap_ms']} | | |"
    first, *_, last = _medians(_rss(study), 10)
    growth = f"{growth_mib(study):+.1f} | {_bound_mib(study):.1f}"
    yield f"| resident MiB, first and last tenth | {first:.1f}, {last:.1f} | | {growth} |"
    for name in ("fds", "threads"):
        low, high = _range(getattr(each, name) for each in study.holdings)
        yield f"| {name}, fewest and most | {low}, {high} | | | |"
    yield f"| bundles kept at the end | {study.num_bundles} | | | 1 |"


def _verbs(study: Study) -> Iterator[str]:
    yield "| verb | p50 in ms | p99 |"
    yield "|---|---|---|"
    for verb, seconds in study.verbs.items():
        found = _percentiles(seconds)
        yield f"| {verb} | {found['p50_ms']} | {found['p99_ms']} |"


def _figures(phase: Phase) -> dict[str, float]:
    return {
        **_percentiles(phase.latencies),
        "gap_ms": round(1e3 * phase.longest_gap_s, 1),
        "calls": len(phase.latencies),
        "seconds": round(phase.seconds, 1),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


def _rss(study: Study) -> list[float]:
    return [each.rss_mib for each in study.holdings]


def _bound_mib(study: Study) -> float:
    return GROWTH_SHARE * _medians(_rss(study), 10)[0] + GROWTH_MIB


def _medians(values: Sequence[float], num_parts: int) -> list[float]:
    """Of so many equal parts in order; of the values themselves where they are fewer."""
    parts = np.array_split(np.asarray(values), min(num_parts, len(values)))
    return [statistics.median(part.tolist()) for part in parts]


def _range(values: Iterable[int]) -> tuple[int, int]:
    found = list(values)
    return min(found), max(found)
