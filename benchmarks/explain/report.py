"""Figures and tables of what explanations cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.explain.study import ExplainRun, ExplainStudy

LIMIT = 6.0


def figures(study: ExplainStudy) -> dict[str, Any]:
    """Medians, and every run."""
    words = [run for run in study.words if run.num_tokens]
    return {
        "evidence": {name: _evidence(runs) for name, runs in study.evidence.items()},
        "choose_us": round(1e6 * statistics.median(run.choose_s for run in words), 1),
        "step_us": round(1e6 * statistics.median(run.step_s for run in words), 1),
        "runs": {name: [asdict(run) for run in runs] for name, runs in study.evidence.items()},
    }


def summary(result: BenchmarkResult) -> str:
    """The ratios, for the README."""
    return "\n".join(_summary(result))


def _summary(result: BenchmarkResult) -> Iterator[str]:
    figures = result.figures
    yield f"| ratio, {result.dtype} | | limit | meaning |"
    yield "|---|---|---|---|"
    for name, each in figures["evidence"].items():
        yield (
            f"| `evidence_over_ranking_{name}` | {each['ratio']:.2f} | {LIMIT:g} | evidence of 20 "
            f"events ÷ a ranking of 20 candidates; {each['num_mixtures']:g} mixtures per user |"
        )
    share = figures["choose_us"] / figures["step_us"]
    yield (
        f"| `grounding_share` | {share:.3f} | | choosing a grounded token ÷ the whole step "
        f"({figures['choose_us']:g} µs of {figures['step_us']:g} µs) |"
    )


def _evidence(runs: Sequence[ExplainRun]) -> dict[str, float]:
    ratios = [run.evidence_s / run.ranking_s for run in runs]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ranking_ms": round(1e3 * statistics.median(run.ranking_s for run in runs), 2),
        "evidence_ms": round(1e3 * statistics.median(run.evidence_s for run in runs), 2),
        "num_mixtures": statistics.median(run.num_mixtures for run in runs),
        "num_events": min(run.num_events for run in runs),
    }
