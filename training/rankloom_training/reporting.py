"""Shows an evaluation report: tables in the terminal, a plot, and JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from rankloom_training.all_items import LIKES_EACH, PREFILTER, AllItemsReport
from rankloom_training.data import Dataset
from rankloom_training.evaluate import Report
from rankloom_training.explained import ExplanationReport
from rankloom_training.json_report import json_text
from rankloom_training.metrics import Estimate, auc
from rankloom_training.scored_rows import ScoredRows

SYNTHETIC = ("Bayes optimum", "served", "fused", "global")
TOP_METRICS = {"ndcg10": "NDCG@10", "hit10": "hit@10", "recall10": "recall@10"}
_BEFORE_TEST = "all unseen items before the test rows, and the likes among these"
_AS_THEY_COME = f"the next like, {LIKES_EACH} test likes a user at most, with all events before it"
METRICS = {"auc": "AUC", "uauc": "UAUC", "ndcg5": "NDCG@5", "map5": "MAP@5"}


def tables(report: Report) -> list[Table]:
    """The metrics of each score, and the served AUC of each part of the rows."""
    title = (
        f"{_rows(report)} of {report.num_users} users, {_likes(report)}, protocol "
        f"{report.protocol}; UAUC over {report.metrics['served'].num_eligible} users with both "
        f"classes; 95 % intervals by user bootstrap{_over(report)}"
    )
    scores = Table("score", *METRICS.values(), title=title)
    for name, found in report.metrics.items():
        scores.add_row(name, *(_cell(getattr(found, metric)) for metric in METRICS))
    parts = Table("part", "rows", "share", "served AUC", title=f"served AUC by part{_over(report)}")
    for name, (rows, value) in report.parts.items():
        parts.add_row(name, str(rows), f"{100 * report.share(rows):.1f} %", _number(value))
    further = [comparison_table(report)]
    further += [all_items_table(report.all_items, _BEFORE_TEST)] if report.all_items else []
    further += [all_items_table(report.next_like, _AS_THEY_COME)] if report.next_like else []
    further += [explanation_table(report.explanations)] if report.explanations else []
    return [scores, parts, *further]


def explanation_table(report: ExplanationReport) -> Table:
    """What was measured of served explanations."""
    table = Table("explanations", "", title=f"{report.num_rows} test rows, explained by a server")
    shares = {
        "have words": report.written,
        "verdict is the side of the ranked probability": report.agreement,
        "words name only what the prompt has": report.grounded,
        "events cited for the verdict that speak for it": report.faithful,
        "cite one of the three most influential events": report.largest,
        "two users, one item, one text": report.repeated,
    }
    for name, share in shares.items():
        table.add_row(name, f"{100 * share:.1f} %" if np.isfinite(share) else "-")
    table.add_row("distinct pairs of words ÷ pairs", _number(report.distinct_2))
    table.add_row("words", f"{report.words:.1f}" if np.isfinite(report.words) else "-")
    if (overlap := report.overlap) is not None:
        rows = f"teacher's words, {overlap.num_rows} rows (those of another row)"
        table.add_row(f"METEOR, {rows}", f"{overlap.meteor:.4f} ({overlap.meteor_other:.4f})")
        table.add_row(f"ROUGE-L, {rows}", f"{overlap.rouge_l:.4f} ({overlap.rouge_l_other:.4f})")
    return table


def comparison_table(report: Report) -> Table:
    """What the served score gains over its parts, variants and another bundle."""
    title = f"served − it, paired bootstrap over users{_over(report)}"
    table = Table("score", "AUC", "UAUC", title=title)
    for name, found in report.served_minus.items():
        table.add_row(name, _difference(found.auc), _difference(found.uauc))
    return table


def all_items_table(report: AllItemsReport, when: str) -> Table:
    """Metrics of rankings of all items that a user did not know, and what the served one gains.

    ``when``: the users did not know them, and what is to be found.
    """
    title = (
        f"{when}: of {report.num_items:,} items, those that each of {report.num_users} users did "
        f"not know, in one list, scored in this process; the language model scores the trees' "
        f"first {PREFILTER}"
    )
    table = Table("score", *TOP_METRICS.values(), "served − it, NDCG@10 (paired)", title=title)
    for name, found in report.metrics.items():
        gain = report.served_minus.get(name)
        cells = (_cell(getattr(found, metric)) for metric in TOP_METRICS)
        table.add_row(name, *cells, _difference(gain) if gain else "")
    return table


def calibration_line(report: Report) -> str:
    """One line about the served probability; empty where it was not measured."""
    found = report.calibration
    ece = (
        "ECE of the served probability {ece_after:.4f}, of the raw score {ece_before:.4f} (15 bins)"
    )
    return ece.format_map(found) if found else ""


def _likes(report: Report) -> str:
    return f"{100 * report.share_liked:.1f} % likes"


def _rows(report: Report) -> str:
    if report.num_rows == report.num_test_rows:
        return f"{report.num_rows} test rows"
    return f"{report.num_rows} of {report.num_test_rows} test rows"


def difference_line(report: Report) -> str:
    """One line that compares the fused mixture with the global expert."""
    gain = _difference(report.fused_over_global)
    return f"fused − global expert, AUC{_over(report)}: {gain} (paired bootstrap over users)"


def synthetic_aucs(
    scored: ScoredRows, dataset: Dataset, truth: dict[tuple[str, int], tuple[str, float]]
) -> dict[str, dict[str, float]]:
    """Per synthetic group, and for "all": the number of rows and the AUC of each score.

    "Bayes optimum" is the AUC of the probabilities that the labels were drawn from: no model
    can expect more. Empty without a truth, and for sampled negatives, which have none.
    """
    if not truth or dataset.log.sampled:
        return {}
    log = dataset.log
    keys = [
        (log.user_ids[user], int(row - log.start[user]))
        for row, user in zip(scored.rows, scored.user, strict=True)
    ]
    group = np.array([truth[key][0] for key in keys])
    scores = {SYNTHETIC[0]: np.array([truth[key][1] for key in keys])}
    scores |= {name: scored.scores[name] for name in SYNTHETIC[1:]}
    found: dict[str, dict[str, float]] = {}
    for name in ["all", *sorted(set(group))]:
        rows = (group == name) | (name == "all")
        found[str(name)] = {"rows": int(rows.sum())} | {
            key: auc(scored.label[rows], score[rows]) for key, score in scores.items()
        }
    return found


def synthetic_table(synthetic: dict[str, dict[str, float]]) -> Table:
    """AUC by synthetic group, next to the best possible."""
    table = Table("group", "rows", *SYNTHETIC, title="AUC by synthetic group")
    for name, values in synthetic.items():
        table.add_row(name, str(values["rows"]), *(f"{values[key]:.4f}" for key in SYNTHETIC))
    return table


def show(console: Console, report: Report, synthetic: dict[str, dict[str, float]]) -> None:
    """Prints the report. ``synthetic`` is empty unless the data are synthetic."""
    for table in tables(report):
        console.print(table)
    if synthetic:
        console.print(synthetic_table(synthetic))
    console.print(difference_line(report), highlight=False)
    if line := calibration_line(report):
        console.print(line, highlight=False)


def write_json(report: Report, synthetic: dict[str, dict[str, float]], path: Path) -> None:
    """Writes the report as one JSON object."""
    fields = report.to_json() | ({"synthetic": synthetic} if synthetic else {})
    path.write_text(json_text(fields), encoding="utf-8")


def write_plot(report: Report, path: Path) -> None:
    """Plots each metric of each score with its interval. The file name's ending sets the format."""
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
    figure.suptitle(plot_title(report))
    figure.savefig(path)


def plot_title(report: Report) -> str:
    return f"{_rows(report)}, protocol {report.protocol}{_over(report)}"


def _over(report: Report) -> str:
    """Every metric over sampled negatives says so."""
    return f"; over sampled negatives, {report.negatives}" if report.negatives else ""


def _difference(gain: Estimate) -> str:
    return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def _cell(estimate: Estimate) -> str:
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "-"
