"""Trains and judges the towers of one encoder, beside what needs no text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.metrics import Estimate
from rankloom_training.progress import Progress
from rankloom_training.reccot.baselines import factor_predictions, mean_predictions
from rankloom_training.reccot.encode import MADE_FROM, open_vectors, towers_made_from
from rankloom_training.reccot.measures import RatingErrors, paired_difference
from rankloom_training.reccot.tower_files import write_towers
from rankloom_training.reccot.tower_rows import UNKNOWN, TowerRows
from rankloom_training.reccot.tower_training import TowerOptions, predict, train_towers

TOWERS = "towers"


@dataclass(frozen=True, slots=True)
class RatingReport:
    """Of test rows, which nothing was chosen by. ``less``: squared error of the towers less that
    of each other model. ``cold``: how many rows have a user or an item without training rows.
    """

    rows: int
    cold: int
    errors: Mapping[str, RatingErrors]
    less: Mapping[str, Estimate]


def rate(
    reviews: Reviews,
    encoder: Path,
    options: TowerOptions,
    out: Path,
    max_bytes: int,
    progress: Progress,
) -> RatingReport:
    """Writes the towers and their report to ``out``. Raises DataError or ExportError.

    ``encoder``: what ``encode`` wrote. ``max_bytes``: of its store.
    """
    with progress.stage("vectors"):
        rows = TowerRows.of(reviews, open_vectors(reviews, encoder, max_bytes, progress.step))
    with progress.stage("towers"):
        model = train_towers(reviews, rows, options, progress.step)
    test = reviews.rows(Split.TEST)
    predicted = {TOWERS: predict(model, rows, test), **mean_predictions(reviews, test)}
    with progress.stage("baselines"):
        predicted["MF with biases"] = factor_predictions(reviews, rows, test, options.seed)
    report = _report(reviews, rows, predicted)
    made_from = towers_made_from(reviews, encoder)
    given = {"options": asdict(options), MADE_FROM: made_from}
    write_towers(out, model, rows, {**given, **asdict(report)})
    return report


def report_lines(report: RatingReport) -> Iterator[str]:
    yield f"{report.rows:,} test rows, {report.cold:,} of them with an unknown user or item"
    yield f"{'':<16} {'MSE':>7} {'MAE':>7} {'AUC':>7}   towers less it, squared error"
    for name, errors in report.errors.items():
        less = report.less.get(name)
        shown = f"{less.value:+.4f} [{less.low:+.4f}, {less.high:+.4f}]" if less else ""
        yield f"{name:<16} {errors.mse:7.4f} {errors.mae:7.4f} {errors.auc:7.4f}   {shown}".rstrip()
    yield "towers by rating, rows · MSE · MAE:"
    for each in report.errors[TOWERS].by_rating:
        yield f"{each.rating:>4} {each.rows:>9,} {each.mse:9.4f} {each.mae:9.4f}"


def _report(
    reviews: Reviews,
    rows: TowerRows,
    predicted: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
) -> RatingReport:
    test = reviews.rows(Split.TEST)
    rating, user = reviews.rating[test], reviews.user[test]
    squared = {name: (found - rating) ** 2 for name, found in predicted.items()}
    return RatingReport(
        rows=len(test),
        cold=int(((rows.user[test] == UNKNOWN) | (rows.item[test] == UNKNOWN)).sum()),
        errors={name: RatingErrors.of(rating, found) for name, found in predicted.items()},
        less={
            name: paired_difference(user, squared[TOWERS], each)
            for name, each in squared.items()
            if name != TOWERS
        },
    )
