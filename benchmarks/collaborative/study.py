"""Collaborative models, each fitted once for a seed and judged on rows that it did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.results import BenchmarkResult
from rankloom_features.fit import Examples, score
from rankloom_training.data import Dataset, Split
from rankloom_training.metrics import evaluate
from rankloom_training.progress import Progress
from rankloom_training.stages.collaborative import CollaborativeFits, CollaborativeStage
from rankloom_training.stages.rows import LogRows
from rankloom_training.visibility import Protocol, View, scoring_view

SPLITS = (Split.VALID, Split.TEST)
METRICS = ("auc", "uauc")


def study(
    data: Dataset, protocol: Protocol, models: Sequence[str], num_seeds: int
) -> dict[str, Any]:
    """Model → split → metric → the mean over the seeds, and the interval of the mean score."""
    return {name: _of_model(data, protocol, name, num_seeds) for name in models}


def summary(result: BenchmarkResult) -> str:
    """The table as lines."""
    lines = [f"{'':10} {'valid AUC':25} {'valid UAUC':25} {'test AUC':25} test UAUC"]
    for name, of_split in result.figures.items():
        cells = [
            _cell(of_split[split.name.lower()][metric]) for split in SPLITS for metric in METRICS
        ]
        lines.append(f"{name:10} " + " ".join(f"{cell:25}" for cell in cells).rstrip())
    return "\n".join(lines)


def _of_model(
    data: Dataset, protocol: Protocol, name: str, num_seeds: int
) -> dict[str, dict[str, Any]]:
    views = [scoring_view(data.log, protocol, split) for split in SPLITS]
    scores = [_scores(data, protocol, name, seed, views) for seed in range(num_seeds)]
    return {
        split.name.lower(): _judged(data, view, list(of_split))
        for split, view, of_split in zip(SPLITS, views, zip(*scores, strict=True), strict=True)
    }


def _scores(
    data: Dataset, protocol: Protocol, name: str, seed: int, views: Sequence[View]
) -> list[NDArray[np.float32]]:
    """(rows,) logits of each view's rows, of one fit."""
    rows, progress = LogRows.every_of(data, protocol, seed).as_they_come(), Progress()
    with progress.stage(f"{name} {seed}"):
        model = CollaborativeFits(CollaborativeStage(protocol, name, seed), rows, progress).of_all()
    return [score(model, _examples(data, view)) for view in views]


def _examples(data: Dataset, view: View) -> Examples:
    log = data.log
    return Examples(view.histories(log), log.item[view.rows] + 1, log.liked[view.rows])


def _judged(
    data: Dataset, view: View, scores: Sequence[NDArray[np.float32]]
) -> dict[str, Mapping[str, float]]:
    user, label = data.log.user[view.rows], data.log.liked[view.rows]
    each = [evaluate(user, label, own) for own in scores]
    together = evaluate(user, label, np.mean(scores, axis=0))
    return {
        metric: asdict(getattr(together, metric))
        | {"value": float(np.mean([getattr(own, metric).value for own in each]))}
        for metric in METRICS
    }


def _cell(found: Mapping[str, float]) -> str:
    return f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
