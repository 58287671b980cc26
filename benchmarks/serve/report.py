"""Figures and tables of the server beside the engine alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.rank_calls import NUM_CANDIDATES
from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.serve.study import ServeStudy

SIDES = {"grpc": "`Rank` over gRPC", "inprocess": "engine alone"}

# Ratio → its meaning.
RATIOS = {
    "grpc_over_inprocess": "candidates per CPU-second, server ÷ engine alone, 16 calls in flight",
    "grpc_added_p50_ms": "p50 of `Rank` − p50 of the engine alone, one call at a time",
    "health_p99_ms": "p99 of health checks, 50 per second, 16 calls in flight",
}

NOTES = """\
Medians over the rounds; the first ratio is the median of the rounds' own. CPU-seconds are those
of the server's process, or of the process that holds the engine alone. One call at a time, the
sides take turns every half second, and the second ratio is the median over these turns. No side
keeps prefixes. A health check is timed from when it was due, under load."""


def figures(study: ServeStudy) -> dict[str, Any]:
    """Ratios, medians of both sides, and everything that was measured."""
    from benchmarks.serve.study import ratios

    return {
        "ratios": ratios(study.rounds),
        "sides": {side: _side(study, side) for side in SIDES},
        "prompts": asdict(study.prompts),
        "difference": study.difference,
        "stolen": statistics.median(each.stolen for each in study.rounds),
        "reused": sum(phase.num_reused for each in study.rounds for phase in each.phases.values()),
        "rounds": [asdict(each) for each in study.rounds],
    }


def summary(result: BenchmarkResult) -> str:
    """The ratios, for the README."""
    found = result.figures
    lines = [f"| ratio, {result.dtype} | | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {found['ratios'][key]:.3g} | {RATIOS[key]} |" for key in RATIOS]
    alone = found["sides"]["inprocess"]["p50_ms"]
    lines.append(f"| | {alone:.3g} | p50 of the engine alone in ms, one call at a time |")
    return "\n".join(lines)


def tables(result: BenchmarkResult) -> str:
    """Both sides, what they scored, and the ratios."""
    found = result.figures
    title = f"{result.settings['model']}, {result.dtype}, threads {result.settings['threads']}"
    rows = {
        "candidates / CPU-s, saturated": "candidates_per_cpu_s",
        "candidates / s, saturated": "candidates_per_s",
        "p50 in ms, saturated": "p50_saturated_ms",
        "p50 in ms, one call at a time": "p50_ms",
    }
    lines = [f"| {title} | {' | '.join(SIDES.values())} |", "|---|---|---|"]
    for row, key in rows.items():
        cells = " | ".join(f"{found['sides'][side][key]:.4g}" for side in SIDES)
        lines.append(f"| {row} | {cells} |")
    return "\n\n".join(["\n".join(lines), _prompts(result.settings, found), NOTES, summary(result)])


def _side(study: ServeStudy, side: str) -> dict[str, float]:
    saturated = [each.phases[side] for each in study.rounds]
    alone = [each.phases[f"{side}_alone"] for each in study.rounds]
    return {
        "candidates_per_cpu_s": NUM_CANDIDATES * statistics.median(p.rate() for p in saturated),
        "candidates_per_s": NUM_CANDIDATES
        * statistics.median(p.rate(wall=True) for p in saturated),
        "p50_saturated_ms": statistics.median(p.p50_ms() for p in saturated),
        "p50_ms": statistics.median(p.p50_ms() for p in alone),
    }


def _prompts(settings: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    prompts = found["prompts"]
    routes = ", ".join(f"{route} {num}" for route, num in prompts["routes"].items())
    return (
        f"Prefixes of {prompts['prefix_tokens']:g} tokens, {NUM_CANDIDATES} candidates of "
        f"{prompts['candidate_tokens']:g} (medians). Routes of the users' mixtures: {routes}. "
        f"{settings['in_flight']} calls in flight when saturated; prefixes reused: "
        f"{found['reused']}. Largest difference between the sides' scores: "
        f"{found['difference']:.1e}. The host gave {found['stolen']:.1%} of the cores' time to "
        "others (median of the rounds)."
    )
