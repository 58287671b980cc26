"""How long a training will take: rows of each stage times seconds a row on this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rankloom_training.data import Dataset, Split
from rankloom_training.data.checks import CALIBRATION_ROWS
from rankloom_training.group_counts import AUTO, MAX_TRIED
from rankloom_training.options import TrainOptions
from rankloom_training.rates import Rates
from rankloom_training.visibility import TABLE_ROWS, VALID_SHARE

EMBEDDED = "embedded"
ROWS_PER_SHOT = 10  # a row alone in its window costs as much as so many that share one
STAGES = (
    *("collaborative", "trees", "router", "traces"),
    *("base", "global", "groups", "calibrate"),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What a stage works through. ``kind``: stages of one kind take equally long for a row.

    ``rows``: counted once for each epoch.
    """

    kind: str
    rows: int


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """Seconds of each stage; None where nothing like it has run on this machine.

    ``measured``: stages with the rate of an earlier training here; the others' is from a trial.
    """

    seconds: Mapping[str, float | None]
    measured: frozenset[str]

    def text(self, stages: Collection[str]) -> str:
        """How long these stages take together, in words."""
        known = {stage: seconds for stage in stages if (seconds := self.seconds[stage]) is not None}
        if len(known) < len(stages):
            return f"{duration(sum(known.values()))}, and the base, of which nothing is known yet"
        longest = max(known, key=lambda stage: known[stage], default="")
        source = "earlier trainings here" if longest in self.measured else "a short trial"
        return f"{duration(sum(known.values()))} (from {source})"


def workloads(dataset: Dataset, options: TrainOptions) -> dict[str, Workload]:
    """Stage → what it works through."""
    split, base = dataset.log.split, options.base or EMBEDDED
    train, valid = int((split == Split.TRAIN).sum()), int((split == Split.VALID).sum())
    seen = min(train, options.lm_rows)
    num_groups = MAX_TRIED if options.num_groups == AUTO else options.num_groups
    reviews = {"reviews": Workload("reviews", train)} if options.review_encoder else {}
    return {
        "collaborative": Workload(f"collaborative {options.collaborative}", train),
        **reviews,
        "trees": Workload("trees", min(train, TABLE_ROWS) + min(valid, TABLE_ROWS // VALID_SHARE)),
        "router": Workload("router", train),
        "traces": Workload("traces", 0 if options.traces else round(seen * options.trace_share)),
        "base": Workload(f"base {base}", 1 if options.base else seen * options.base_epochs),
        "global": Workload(
            f"global {base}", _taught(seen, options, 1) * options.global_recipe.epochs
        ),
        "groups": Workload(
            f"groups {base}",
            options.group_experts
            * _taught(seen, options, num_groups)
            * options.group_recipe.epochs,
        ),
        "calibrate": Workload(f"calibrate {base}", min(valid, CALIBRATION_ROWS)),
    }


def _taught(seen: int, options: TrainOptions, num_experts: int) -> int:
    """Rows that experts learn from, of those that are ``seen``."""
    if options.shots is None:
        return seen
    return min(seen, options.shots * ROWS_PER_SHOT * num_experts)


def estimate(dataset: Dataset, options: TrainOptions) -> TimeEstimate:
    """Of all stages of a training."""
    rates, work = Rates.of_this_machine(), workloads(dataset, options)
    return TimeEstimate(
        {stage: rates.seconds(one.kind, one.rows) for stage, one in work.items()},
        frozenset(stage for stage, one in work.items() if rates.is_measured(one.kind, one.rows)),
    )


def duration(seconds: float) -> str:
    """About how long, in words."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 100 else f"about {round(minutes / 60)} h"
