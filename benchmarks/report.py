"""Tables and ratios of the studies."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from study import OTHER_METHODS, ROUNDING, Rounding, Row, Study

# Ratio → the variants whose rates are divided, and the clock.
CPU, WALL = False, True
RATIOS = {
    "engine_over_full_cpu": ("engine", "full", CPU),
    "engine_over_peft_cat_cpu": ("engine", "peft_cat", CPU),
    "experts_tax": ("engine", "engine_bare", CPU),
    "time_over_floor": ("floor", "engine", CPU),
    "time_over_floor_wall": ("floor", "engine", WALL),
    "experts_256_over_8": ("engine_256", "engine", CPU),
    "prefix_reuse_20": ("second_20", "first_20", CPU),
    "prefix_reuse_5": ("second_5", "first_5", CPU),
}

TITLES = {
    "full": "(a) base model, full prompts, no experts",
    "merged": "(b) weights merged per user, full prompts",
    "peft_linear": "(c) PEFT `linear` adapter per user (another method)",
    "peft_cat": "(c) PEFT `cat` adapter per user",
    "peft_mixed": "(d) PEFT `adapter_names`, 2 users a batch",
    "engine": "(e) this engine, 8 experts",
    "engine_bare": "(e) this engine, no experts",
    "engine_256": "(e) this engine, 256 experts, 4 used by each user",
    "first_20": "20 candidates a user: first call",
    "second_20": "20 new candidates, prefixes held",
    "first_5": "5 candidates a user: first call",
    "second_5": "5 new candidates, prefixes held",
    "floor": "(f) floor: fewest FLOPs at the rate of a matmul",
}

NOTES = """\
Medians over the rounds; `× (a)` and the ratios are medians of the rounds' own ratios, of
candidates per CPU-second unless the name says wall. Methods with whole prompts score fewer
users. `difference`: the largest of a float32 margin, of a few users and candidates, from
merged weights with whole prompts; of the engine without experts, from (a)."""


def ratios(studies: Mapping[str, Study], growth_mib: float) -> dict[str, object]:
    """By ratio, then by model. Each is the median of its values in the single rounds."""
    found: dict[str, object] = {
        name: {
            model: _ratio(study.rows[above], study.rows[below], wall=wall)
            for model, study in studies.items()
        }
        for name, (above, below, wall) in RATIOS.items()
    }
    return {**found, "mixes_rss_growth_mib": round(growth_mib, 2)}


def tables(studies: Mapping[str, Study], found: Mapping[str, object]) -> str:
    """Markdown: a table of methods for each model, then the ratios."""
    blocks = ["\n".join(_methods(model, study)) for model, study in studies.items()]
    rounding = "\n".join(_rounding(model, study.rounding) for model, study in studies.items())
    return "\n\n".join([*blocks, NOTES, rounding, "\n".join(_ratios(list(studies), found))])


def as_json(study: Study) -> dict[str, object]:
    """Everything that was measured, so that any other ratio can be worked out."""
    rows = {
        name: {
            "users": row.users,
            "candidates": row.candidates,
            "cpu_s": [cost.cpu_s for cost in row.costs],
            "wall_s": [cost.wall_s for cost in row.costs],
        }
        for name, row in study.rows.items()
    }
    return {
        "differences_fp32": study.differences,
        "rounding_bf16": asdict(study.rounding),
        "variants": rows,
    }


def _rounding(model: str, found: Rounding) -> str:
    return (
        f"{model} in bf16: margins differ from float32's by {found.error:.3f} of their standard "
        f"deviation (root mean square; merged weights with whole prompts: "
        f"{found.error_merged:.3f}). Of the pairs further apart than {ROUNDING:g} of it, "
        f"{found.ordered:.1%} keep their order."
    )


def _ratio(above: Row, below: Row, *, wall: bool) -> float:
    pairs = zip(above.rates(wall=wall), below.rates(wall=wall), strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def _methods(model: str, study: Study) -> Iterator[str]:
    yield f"| {model}, bf16 | users | candidates / CPU-s | candidates / s | × (a) | difference |"
    yield "|---|---|---|---|---|---|"
    for name, title in TITLES.items():
        row = study.rows[name]
        rates = [statistics.median(row.rates(wall=wall)) for wall in (CPU, WALL)]
        times = _ratio(row, study.rows["full"], wall=CPU)
        cells = [title, str(row.users or ""), *(f"{rate:.4g}" for rate in rates), f"{times:.2f}"]
        yield f"| {' | '.join([*cells, _difference(study, name)])} |"


def _difference(study: Study, name: str) -> str:
    if name not in study.differences:
        return ""
    note = " (another method)" if name in OTHER_METHODS else ""
    return f"{study.differences[name]:.1e}{note}"


def _ratios(models: list[str], found: Mapping[str, object]) -> Iterator[str]:
    yield "| ratio | " + " | ".join(models) + " |"
    yield "|---" * (len(models) + 1) + "|"
    for name, values in found.items():
        shown = values.values() if isinstance(values, dict) else [values]
        yield f"| `{name}` | " + " | ".join(f"{value:.2f}" for value in shown) + " |"
