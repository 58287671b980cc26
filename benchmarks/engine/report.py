"""Figures and tables of the engine's comparison."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.common.results import BenchmarkResult
from benchmarks.common.timing import Spread, median_ratio, round_ratios
from benchmarks.engine.findings import OTHER_METHODS, ROUNDING, EngineStudy, VariantCosts

# Ratio → variants whose rates are divided, clock, and what it says.
CPU, WALL = False, True
RATIOS = {
    "engine_over_full_cpu": ("engine", "full", CPU, "engine ÷ base model on whole prompts"),
    "engine_over_peft_cat_cpu": ("engine", "peft_cat", CPU, "engine ÷ PEFT `cat`, per user"),
    "experts_tax": ("engine", "engine_bare", CPU, "with 8 experts ÷ without experts"),
    "time_over_roofline": ("roofline", "engine", CPU, "CPU time ÷ the roofline's"),
    "time_over_roofline_wall": ("roofline", "engine", WALL, "wall time ÷ the roofline's"),
    "experts_256_over_8": ("engine_256", "engine", CPU, "256 experts, 4 per user ÷ 8 experts"),
    "prefix_reuse_20": ("second_20", "first_20", CPU, "cached prefix ÷ first call, 20 candidates"),
    "prefix_reuse_5": ("second_5", "first_5", CPU, "cached prefix ÷ first call, 5 candidates"),
}

TITLES = {
    "full": "(a) base model, whole prompts, no experts",
    "merged": "(b) weights merged per user, whole prompts",
    "peft_linear": "(c) PEFT `linear` adapter per user (another method)",
    "peft_cat": "(c) PEFT `cat` adapter per user",
    "peft_mixed": "(d) PEFT `adapter_names`, 2 users per batch",
    "engine": "(e) rankloom, 8 experts",
    "engine_bare": "(e) rankloom, no experts",
    "engine_256": "(e) rankloom, 256 experts, 4 used per user",
    "first_20": "20 candidates per user: first call",
    "second_20": "20 new candidates, cached prefix",
    "first_5": "5 candidates per user: first call",
    "second_5": "5 new candidates, cached prefix",
    "roofline": "(f) roofline: fewest FLOPs at the speed of a matmul",
}

NOTES = """\
Medians over the rounds; `× (a)` and the ratios are medians of the rounds' own ratios, in
candidates per CPU-second unless the name says wall. Methods with whole prompts score fewer
users. `difference`: the largest difference of a float32 margin from merged weights with whole
prompts, for a few users and candidates; for the engine without experts, from (a)."""


def figures(studies: Mapping[str, EngineStudy], growth_mib: float) -> dict[str, Any]:
    """Ratios, rates and raw seconds, by model."""
    return {
        "ratios": ratios(studies),
        "spreads": _spreads(studies),
        "memory_growth_mib": round(growth_mib, 2),
        "models": {model: _model_figures(study) for model, study in studies.items()},
    }


def ratios(studies: Mapping[str, EngineStudy]) -> dict[str, dict[str, float]]:
    """By ratio, then by model: each is the median of its values in the single rounds."""
    return {
        name: {
            model: _ratio(study.variants[above], study.variants[below], wall=wall)
            for model, study in studies.items()
        }
        for name, (above, below, wall, _) in RATIOS.items()
    }


def summary(result: BenchmarkResult) -> str:
    """The ratios, for the README."""
    return "\n".join(_ratio_rows(result))


def tables(result: BenchmarkResult) -> str:
    """A table of methods for each model, rounding, and the ratios."""
    models = result.figures["models"]
    methods = ["\n".join(_method_rows(name, result.dtype, one)) for name, one in models.items()]
    rounding = [
        _rounding(name, result.dtype, one["rounding"])
        for name, one in models.items()
        if "rounding" in one
    ]
    blocks = [*methods, NOTES, "\n".join(rounding), summary(result)]
    return "\n\n".join(block for block in blocks if block)


def _model_figures(study: EngineStudy) -> dict[str, Any]:
    full = study.variants["full"]
    return {
        "variants": {
            name: {
                "users": each.users,
                "candidates_per_cpu_s": statistics.median(each.rates()),
                "candidates_per_s": statistics.median(each.rates(wall=True)),
                "times_full": _ratio(each, full, wall=CPU),
                "difference": study.differences.get(name),
                "candidates": each.candidates,
                "cpu_s": [cost.cpu_s for cost in each.costs],
                "wall_s": [cost.wall_s for cost in each.costs],
            }
            for name, each in study.variants.items()
        },
        "rounding": asdict(study.rounding),
    }


def _spreads(studies: Mapping[str, EngineStudy]) -> dict[str, dict[str, dict[str, float]]]:
    """Least, median and most of each ratio over the rounds, by model."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (above, below, wall, _) in RATIOS.items():
        found[name] = {}
        for model, study in studies.items():
            rates = [study.variants[each].rates(wall=wall) for each in (above, below)]
            found[name][model] = asdict(Spread.of(round_ratios(*rates)))
    return found


def _ratio(above: VariantCosts, below: VariantCosts, *, wall: bool) -> float:
    return median_ratio(above.rates(wall=wall), below.rates(wall=wall))


def _rounding(model: str, dtype: str, found: Mapping[str, float]) -> str:
    text = (
        f"{model}, {dtype}: margins differ from float32's by {found['error']:.3f} of their "
        f"standard deviation (root mean square; merged weights with whole prompts: "
        f"{found['error_merged']:.3f})."
    )
    if "ordered" not in found:
        return text
    return (
        f"{text} Of the pairs further apart than {ROUNDING:g} of it, "
        f"{found['ordered']:.1%} keep their order."
    )


def _method_rows(model: str, dtype: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {model}, {dtype} | users | candidates / CPU-s | candidates / s | × (a) | difference |"
    yield "|---|---|---|---|---|---|"
    for name, title in TITLES.items():
        row = found["variants"][name]
        rates = [f"{row[each]:.4g}" for each in ("candidates_per_cpu_s", "candidates_per_s")]
        note = " (another method)" if name in OTHER_METHODS else ""
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}{note}"
        cells = [title, str(row["users"] or ""), *rates, f"{row['times_full']:.2f}", difference]
        yield f"| {' | '.join(cells)} |"


def _ratio_rows(result: BenchmarkResult) -> Iterator[str]:
    found = result.figures
    models = list(found["models"])
    yield f"| ratio, {result.dtype} | " + " | ".join(models) + " | meaning |"
    yield "|---" * (len(models) + 2) + "|"
    for name, (_, _, _, meaning) in RATIOS.items():
        cells = [f"{found['ratios'][name][model]:.2f}" for model in models]
        yield f"| `{name}` | {' | '.join(cells)} | {meaning} |"
    if found.get("memory_growth_mib") is not None:
        growth = f"{found['memory_growth_mib']:.2f} |" + " |" * (len(models) - 1)
        meaning = f"MiB more after {result.settings['mixtures']:,} different mixtures"
        yield f"| `memory_growth_mib` | {growth} {meaning} |"
