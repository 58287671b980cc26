"""The table of the study: errors of each model, and how much lower those with rationales are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.common.results import BenchmarkResult
from benchmarks.reccot.study import WITH, Predictions
from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.measures import RatingErrors, paired_difference


def figures_of(reviews: Reviews, predicted: Predictions) -> dict[str, dict[str, Any]]:
    """For each model: squared error by seed, its mean errors, and WITH less it, paired."""
    test = reviews.rows(Split.TEST)
    rating, user = reviews.rating[test], reviews.user[test]
    squared = {
        name: np.mean([(found - rating) ** 2 for found in seeds], axis=0)
        for name, seeds in predicted.items()
    }
    return {
        name: {
            "by_seed": [float(np.mean((found - rating) ** 2)) for found in seeds],
            "mse": float(squared[name].mean()),
            "of_mean_prediction": RatingErrors.of(rating, np.mean(seeds, axis=0)).to_json(),
            "with_less_it": asdict(paired_difference(user, squared[WITH], squared[name])),
        }
        for name, seeds in predicted.items()
    }


def summary(result: BenchmarkResult) -> str:
    """The table as lines."""
    width = max(map(len, result.figures))
    lines = [f"{'':{width}}  MSE     by seed                    with rationales less it"]
    for name, own in result.figures.items():
        seeds = " ".join(f"{each:.4f}" for each in own["by_seed"])
        less = own["with_less_it"]
        interval = f"{less['value']:+.4f} [{less['low']:+.4f}, {less['high']:+.4f}]"
        lines.append(f"{name:{width}}  {own['mse']:.4f}  {seeds:26} {interval}")
    return "\n".join(lines)
