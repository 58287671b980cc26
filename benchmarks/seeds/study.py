"""The served score of each bundle, less those of its parts, as a mean over the bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import BenchmarkResult
from rankloom_training.evaluate import evaluate
from rankloom_training.metrics import (
    auc,
    mean_auc_difference,
    mean_over_users,
    mean_uauc_difference,
    rows_by_user,
)
from rankloom_training.progress import Progress
from rankloom_training.scored_rows import SERVED, ScoredRows
from rankloom_training.visibility import Protocol

PARTS = ("lightgbm", "global")


def scored_by(
    bundles: Sequence[Path], data: Path, protocol: Protocol, *, through_grpc: bool
) -> list[ScoredRows]:
    """All test rows, by each bundle. Raises what ``evaluate`` raises."""
    progress = Progress()
    found = [
        evaluate(bundle, data, protocol, through_grpc=through_grpc, progress=progress)[1]
        for bundle in bundles
    ]
    assert all(np.array_equal(each.rows, found[0].rows) for each in found)
    return found


def figures_of(found: Sequence[ScoredRows], others: Sequence[ScoredRows] = ()) -> dict[str, Any]:
    """Means over the bundles: of each score, and of the served one less its parts.

    ``others``: of other bundles, in the same order, whose served scores are compared too.
    """
    user, label = found[0].user, found[0].label
    figures: dict[str, Any] = {}
    for name in (SERVED, *PARTS):
        aucs = [auc(label, each.scores[name]) for each in found]
        of_users = [_of_users(each, name) for each in found]
        figures[name] = {"auc": float(np.mean(aucs)), "uauc": float(np.nanmean(of_users))}
    compared = {name: [each.scores[name] for each in found] for name in PARTS}
    if others:
        compared["others"] = [each.scores[SERVED] for each in others]
    for name, scores in compared.items():
        pairs = [(each.scores[SERVED], score) for each, score in zip(found, scores, strict=True)]
        figures[f"{SERVED} - {name}"] = {
            "auc": asdict(mean_auc_difference(user, label, pairs)),
            "uauc": asdict(mean_uauc_difference(user, label, pairs)),
        }
    return figures


def summary(result: BenchmarkResult) -> str:
    """The table as lines."""
    lines = [f"{'':20}  AUC / UAUC, means of {result.settings['bundles']} bundles"]
    for name, own in result.figures.items():
        shown = " / ".join(_shown(own[metric]) for metric in ("auc", "uauc"))
        lines.append(f"{name:20}  {shown}")
    return "\n".join(lines)


def _of_users(scored: ScoredRows, name: str) -> float:
    score = scored.scores[name]
    groups = rows_by_user(scored.user)
    return mean_over_users([auc(scored.label[rows], score[rows]) for rows in groups]).value


def _shown(value: float | dict[str, float]) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value['value']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"
