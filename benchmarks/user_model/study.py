"""Trees with and without columns of the user model, on the same rows."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.results import BenchmarkResult
from rankloom_features.model_columns import COLLABORATIVE
from rankloom_features.ranker import TreeRanker
from rankloom_features.user_model import USER_MODEL_COLUMNS, UserModel
from rankloom_training.data import Dataset, Split
from rankloom_training.metrics import auc, rows_by_user
from rankloom_training.stages.rows import LogRows
from rankloom_training.trees import (
    Boosters,
    FeatureTable,
    HeldOutFeatures,
    held_out_prior,
    joined,
)
from rankloom_training.visibility import Protocol, View, scoring_view

ALONE, ALL, NONE = "the user model alone", "trees with the user model", "trees without it"
LEFT_OUT: Mapping[str, Collection[str]] = {
    ALL: (),
    "trees with its levels alone": {
        "user_model_mean",
        "user_model_item_mean",
        "user_model_affinity",
    },
    "trees with its item means and affinity alone": {
        "user_model_mean",
        "user_model_level",
        "user_model_session",
        "user_model_variance",
    },
    NONE: set(USER_MODEL_COLUMNS),
}
SPLITS = (Split.VALID, Split.TEST)
UPDATES = 2_000


def study(data: Dataset, protocol: Protocol, num_seeds: int) -> dict[str, list[float]]:
    """For each kind of score, AUC and UAUC of validation and then of test rows."""
    found = [_of_seed(data, protocol, seed) for seed in range(num_seeds)]
    return {name: np.mean([one[name] for one in found], axis=0).tolist() for name in found[0]}


def update_us(data: Dataset) -> float:
    """Median microseconds of one event in a user model of the usual variances."""
    model = HeldOutFeatures(data, 0).user_model
    return float(np.median(_update_times(model))) * 1e6


def summary(result: BenchmarkResult) -> str:
    """The table as lines."""
    rows = {name: values for name, values in result.figures.items() if isinstance(values, list)}
    width = max(map(len, rows))
    lines = [f"{'':{width}}  valid AUC / UAUC   test AUC / UAUC"]
    for name, (valid, valid_uauc, test, test_uauc) in rows.items():
        figures = f"{valid:.4f} / {valid_uauc:.4f}    {test:.4f} / {test_uauc:.4f}"
        lines.append(f"{name:{width}}  {figures}")
    return "\n".join([*lines, f"one event: {result.figures['update_us']:.0f} µs"])


def _of_seed(data: Dataset, protocol: Protocol, seed: int) -> dict[str, list[float]]:
    log, features = data.log, HeldOutFeatures(data, seed, held_out_prior(data, seed))
    train = joined([_table(features, view) for view in LogRows.of(data, protocol, seed).train])
    scored = [_table(features, scoring_view(log, protocol, split)) for split in SPLITS]
    alone = features.names.index("user_model_mean")
    found = {ALONE: _metrics(scored, [table.features[:, alone] for table in scored])}
    for name, left_out in LEFT_OUT.items():
        kept = [c for c in features.names if c not in left_out and c != COLLABORATIVE]
        found[name] = _trees(kept, features.names, train, scored)
    return found


def _table(features: HeldOutFeatures, view: View) -> FeatureTable:
    return features.table(view, np.zeros(len(view.rows), np.float32))


def _trees(
    kept: list[str], names: tuple[str, ...], train: FeatureTable, scored: list[FeatureTable]
) -> list[float]:
    at = [names.index(name) for name in kept]
    own, *others = (replace(table, features=table.features[:, at]) for table in (train, *scored))
    ranker = TreeRanker(Boosters(own, others[0], kept, lambda done, total: None).ranker())
    return _metrics(scored, [ranker.logits(table.features) for table in others])


def _metrics(tables: list[FeatureTable], scores: list[NDArray[np.floating]]) -> list[float]:
    found = []
    for table, score in zip(tables, scores, strict=True):
        of_users = [auc(table.label[rows], score[rows]) for rows in rows_by_user(table.user)]
        found += [auc(table.label, score), float(np.nanmean(of_users))]
    return found


def _update_times(model: UserModel) -> list[float]:
    random = np.random.default_rng(0)
    state, times = model.new_user(), list[float]()
    for number in range(UPDATES):
        item, liked = int(random.integers(len(model.means))), bool(random.random() < 0.5)
        started = time.perf_counter()
        state = model.updated(state, item, liked, 60.0 * number)
        times.append(time.perf_counter() - started)
    return times
