"""The table and the figures of the server's benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict

from serve_bundle import NUM_CANDIDATES
from serve_study import Phase, Study, ratios

# What a row shows → the phase that it is of, and its value there.
ROWS: dict[str, tuple[str, Callable[[Phase], float]]] = {
    "candidates / CPU-s, saturated": ("", lambda phase: NUM_CANDIDATES * phase.rate()),
    "candidates / s, saturated": ("", lambda phase: NUM_CANDIDATES * phase.rate(wall=True)),
    "p50 in ms, saturated": ("", Phase.p50_ms),
    "p50 in ms, one call at a time": ("_alone", Phase.p50_ms),
}

NOTES = """\
Medians over the rounds; the first ratio is the median of the rounds' own. CPU-seconds
are those of the server's process, or of the process that holds nothing but the engine. One
call at a time, the sides take turns every half second, and the second ratio is the median of
the turns' own. No side keeps prefixes. A check of health is timed from when it was due,
under load."""


def table(title: str, study: Study) -> str:
    """Markdown: both sides, what they scored, and the ratios."""
    return "\n\n".join(
        ["\n".join(_sides(title, study)), _prompts(study), NOTES, "\n".join(_ratios(study))]
    )


def as_json(study: Study) -> dict[str, object]:
    """The ratios, and everything that was measured."""
    return {"ratios": ratios(study.rounds), "candidates": NUM_CANDIDATES, **asdict(study)}


def _sides(title: str, study: Study) -> Iterator[str]:
    yield f"| {title} | `Rank` over gRPC | engine in process |"
    yield "|---|---|---|"
    for row, (suffix, value) in ROWS.items():
        cells = [
            statistics.median(value(each.phases[side + suffix]) for each in study.rounds)
            for side in ("grpc", "inprocess")
        ]
        yield f"| {row} | {cells[0]:.4g} | {cells[1]:.4g} |"


def _prompts(study: Study) -> str:
    prompts = study.prompts
    routes = ", ".join(f"{route} {num}" for route, num in prompts.routes.items())
    stolen = statistics.median(each.stolen for each in study.rounds)
    reused = sum(phase.num_reused for each in study.rounds for phase in each.phases.values())
    return (
        f"Prefixes of {prompts.prefix_tokens:g} tokens, {NUM_CANDIDATES} candidates of "
        f"{prompts.candidate_tokens:g} (medians). Routes of the users' mixtures: {routes}. "
        f"{study.plan.in_flight} calls in flight when saturated; prefixes reused: {reused}. "
        f"Largest difference between the sides' scores: {study.difference:.1e}. "
        f"The host gave {stolen:.1%} of the cores' time to others (median of the rounds)."
    )


def _ratios(study: Study) -> Iterator[str]:
    yield "| ratio | |"
    yield "|---|---|"
    for name, value in ratios(study.rounds).items():
        yield f"| `{name}` | {value:.3g} |"
