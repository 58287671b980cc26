"""Trees with and without columns of the user model, on the same rows."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.results import BenchmarkResult
from rankloom_features.model_columns import COLLABORATIVE
from rankloom_features.ranker import TreeRanker
from rankloom_features.user_model import USER_MODEL_COLUMNS, UserModel
from rankloom_training.data import Dataset, Split
from rankloom_training.metrics import evaluate, mean_auc_difference, mean_uauc_difference
from rankloom_training.stages.rows import LogRows
from rankloom_training.trees import (
    PARAMETERS,
    Boosters,
    FeatureTable,
    HeldOutFeatures,
    held_out_prior,
    joined,
)
from rankloom_training.visibility import Protocol, View, scoring_view


@dataclass(frozen=True, slots=True)
class PartLeftOut:
    """Trees that lack something. ``left_out``: columns. ``parameters``: of LightGBM, changed.

    ``sees_all``: training rows see all earlier events, whatever the protocol.
    """

    left_out: Collection[str] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    sees_all: bool = False


ALONE, ALL, NONE = "the user model alone", "trees with the user model", "trees without it"
VARIANTS: Mapping[str, PartLeftOut] = {
    ALL: PartLeftOut(),
    "trees with its levels alone": PartLeftOut(
        {"user_model_mean", "user_model_item_mean", "user_model_affinity"}
    ),
    "trees with its item means and affinity alone": PartLeftOut(
        {"user_model_mean", "user_model_level", "user_model_session", "user_model_variance"}
    ),
    NONE: PartLeftOut(set(USER_MODEL_COLUMNS)),
    "without extra_trees": PartLeftOut(parameters={"extra_trees": False}),
}
# Under P1 rows see all earlier events anyway.
OF_P0 = {"without simulated cut-offs": PartLeftOut(sees_all=True)}
SPLITS = (Split.VALID, Split.TEST)
METRICS = ("auc", "uauc")
UPDATES = 2_000
Scores = tuple[NDArray[np.floating], ...]  # (rows,) of each split


def study(data: Dataset, protocol: Protocol, num_seeds: int) -> dict[str, Any]:
    """Kind of score → split → metric → its mean over the seeds and what trees with all gain on it.

    Intervals are from a bootstrap over users: of the mean score, and of the mean difference.
    """
    found = [_of_seed(data, protocol, seed) for seed in range(num_seeds)]
    views = [scoring_view(data.log, protocol, split) for split in SPLITS]
    return {
        name: {
            split.name.lower(): _judged(
                data, view, [one[name][at] for one in found], [one[ALL][at] for one in found]
            )
            for at, (split, view) in enumerate(zip(SPLITS, views, strict=True))
        }
        for name in found[0]
    }


def update_us(data: Dataset) -> float:
    """Median microseconds of one event in a user model of the usual variances."""
    model = HeldOutFeatures(data, 0).user_model
    return float(np.median(_update_times(model))) * 1e6


def summary(result: BenchmarkResult) -> str:
    """A table for each split as lines."""
    kinds = {name: of for name, of in result.figures.items() if isinstance(of, dict)}
    width, lines = max(map(len, kinds)), list[str]()
    for split in (split.name.lower() for split in SPLITS):
        lines.append(f"{split:{width}}  {'AUC':26}{'UAUC':26}gain of {ALL}, AUC / UAUC")
        for name, of in kinds.items():
            own = "".join(f"{_shown(of[split][metric], '.4f'):26}" for metric in METRICS)
            gains = " / ".join(_shown(of[split][f"{metric}_gain"], "+.4f") for metric in METRICS)
            lines.append(f"{name:{width}}  {own}{'' if name == ALL else gains}".rstrip())
        lines.append("")
    return "\n".join([*lines, f"one event: {result.figures['update_us']:.0f} µs"])


def _of_seed(data: Dataset, protocol: Protocol, seed: int) -> dict[str, Scores]:
    features = HeldOutFeatures(data, seed, held_out_prior(data, seed))
    train = _training_table(features, data, protocol, seed)
    scored = [_table(features, scoring_view(data.log, protocol, split)) for split in SPLITS]
    alone = features.names.index("user_model_mean")
    found: dict[str, Scores] = {ALONE: tuple(table.features[:, alone] for table in scored)}
    variants = {**VARIANTS, **(OF_P0 if protocol is Protocol.P0 else {})}
    for name, variant in variants.items():
        own = _training_table(features, data, Protocol.P1, seed) if variant.sees_all else train
        found[name] = _trees(variant, features.names, own, scored)
    return found


def _training_table(
    features: HeldOutFeatures, data: Dataset, protocol: Protocol, seed: int
) -> FeatureTable:
    return joined([_table(features, view) for view in LogRows.of(data, protocol, seed).train])


def _table(features: HeldOutFeatures, view: View) -> FeatureTable:
    return features.table(view, np.zeros(len(view.rows), np.float32))


def _trees(
    variant: PartLeftOut, names: tuple[str, ...], train: FeatureTable, scored: list[FeatureTable]
) -> Scores:
    kept = [name for name in names if name not in variant.left_out and name != COLLABORATIVE]
    at = [names.index(name) for name in kept]
    own, *others = (replace(table, features=table.features[:, at]) for table in (train, *scored))
    with patch.dict(PARAMETERS, variant.parameters):
        ranker = TreeRanker(Boosters(own, others[0], kept, lambda done, total: None).ranker())
    return tuple(ranker.logits(table.features) for table in others)


def _judged(
    data: Dataset, view: View, scores: Sequence[NDArray[np.floating]], best: Sequence[Any]
) -> dict[str, Any]:
    user, label = data.log.user[view.rows], data.log.liked[view.rows]
    each = [evaluate(user, label, own) for own in scores]
    together = evaluate(user, label, np.mean(scores, axis=0))
    pairs = list(zip(best, scores, strict=True))
    values = {
        metric: asdict(getattr(together, metric))
        | {"value": float(np.mean([getattr(own, metric).value for own in each]))}
        for metric in METRICS
    }
    return values | {
        "auc_gain": asdict(mean_auc_difference(user, label, pairs)),
        "uauc_gain": asdict(mean_uauc_difference(user, label, pairs)),
    }


def _shown(found: Mapping[str, float], form: str) -> str:
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def _update_times(model: UserModel) -> list[float]:
    random = np.random.default_rng(0)
    state, times = model.new_user(), list[float]()
    for number in range(UPDATES):
        item, liked = int(random.integers(len(model.means))), bool(random.random() < 0.5)
        started = time.perf_counter()
        state = model.updated(state, item, liked, 60.0 * number)
        times.append(time.perf_counter() - started)
    return times
