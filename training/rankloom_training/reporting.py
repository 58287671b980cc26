"""Shows an evaluation: a table for the terminal, a plot, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from rankloom_training.data import Dataset
from rankloom_training.evaluate import Report, Scored
from rankloom_training.metrics import Estimate, auc
from rankloom_training.planted import read_truth

METRICS = {"auc": "AUC", "uauc": "UAUC", "ndcg5": "NDCG@5", "map5": "MAP@5"}


def tables(report: Report) -> list[Table]:
    """Metrics of each score, then the served AUC by part."""
    title = (
        f"{report.num_rows} test rows of {report.num_users} users, protocol "
        f"{report.protocol}; UAUC over {report.metrics['served'].num_eligible} users with both "
        f"classes; 95 % intervals by user bootstrap"
    )
    scores = Table("score", *METRICS.values(), title=title)
    for name, found in report.metrics.items():
        scores.add_row(name, *(_cell(getattr(found, metric)) for metric in METRICS))
    parts = Table("part", "rows", "served AUC", title="where the rows come from")
    for name, (rows, value) in report.parts.items():
        parts.add_row(name, str(rows), _number(value))
    return [scores, parts]


def difference_line(report: Report) -> str:
    """The fused mix against the global expert, in words."""
    difference = report.fused_over_global
    return (
        f"fused − global expert, AUC: {difference.value:+.4f} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}] (paired bootstrap over users)"
    )


def planted_table(
    scored: Scored, dataset: Dataset, truth: dict[tuple[str, int], tuple[str, float]]
) -> Table:
    """AUC by planted group beside the best possible, for data whose truth is known."""
    log = dataset.log
    keys = [
        (log.user_ids[user], int(row - log.start[user]))
        for row, user in zip(scored.rows, scored.user, strict=True)
    ]
    group = np.array([truth[key][0] for key in keys])
    best = np.array([truth[key][1] for key in keys])
    table = Table(
        "planted group", "rows", "Bayes optimum", "served", "fused", "global", title="AUC by taste"
    )
    for name in ["all", *sorted(set(group))]:
        rows = (group == name) | (name == "all")
        scores = [best, *(scored.scores[key] for key in ("served", "fused", "global"))]
        cells = [f"{auc(scored.label[rows], score[rows]):.4f}" for score in scores]
        table.add_row(str(name), str(int(rows.sum())), *cells)
    return table


def show(console: Console, report: Report, scored: Scored, dataset: Dataset, data: Path) -> None:
    """Prints every table, with the planted truth where ``data`` holds one."""
    for table in tables(report):
        console.print(table)
    truth = read_truth(data)
    if truth:
        console.print(planted_table(scored, dataset, truth))
    console.print(difference_line(report), highlight=False)


def write_json(report: Report, path: Path) -> None:
    """Writes the report as one JSON object."""
    path.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")


def write_plot(report: Report, path: Path) -> None:
    """Draws each metric of each score with its interval; the ending names the format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    names = list(report.metrics)
    for axes, (metric, title) in zip(
        np.atleast_1d(figure.subplots(1, len(METRICS), sharey=True)), METRICS.items(), strict=True
    ):
        found = [getattr(report.metrics[name], metric) for name in names]
        values = np.array([estimate.value for estimate in found])
        errors = np.abs(np.array([(e.low, e.high) for e in found]).T - values)
        axes.errorbar(values, range(len(names)), xerr=errors, fmt="o", capsize=3)
        axes.set(title=title, yticks=range(len(names)), yticklabels=names)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{report.num_rows} test rows, protocol {report.protocol}")
    figure.savefig(path)


def _cell(estimate: Estimate) -> str:
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "-"
