"""Figures and the table of offline beside online."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.replay.study import ReplayStudy

LIMIT = 1e-5
SCORE_LIMIT = 1e-4  # of two ways through the model in float32


def figures(study: ReplayStudy) -> dict[str, Any]:
    """All that was found."""
    return asdict(study)


def summary(result: BenchmarkResult) -> str:
    """The table, for the README."""
    return "\n".join(_summary(result.figures))


def _summary(found: Mapping[str, Any]) -> Iterator[str]:
    train, valid, live = found["train"], found["valid"], found["live"]
    of_all = live["tabular"]  # the largest difference of all columns
    yield "| largest difference, offline − served | training rows | validation rows | live events |"
    yield "|---|---|---|---|"
    counts = (train["num_rows"], valid["num_rows"], f"{live['num_sent']:,} of {live['num_users']}")
    yield f"| rows; events and users | {counts[0]:,} | {counts[1]:,} | {counts[2]} users |"
    yield _row("user vector", train["vector"], valid["vector"], live["vector"])
    yield _row("columns of the user model", train["user_model"], valid["user_model"], of_all)
    yield _row("other columns", train["tabular"], valid["tabular"], of_all)
    yield _row("trees' logit", train["tree_logit"], valid["tree_logit"], None)
    yield _row("score, as evaluated", train["evaluated"], valid["evaluated"], None)
    yield _row(f"score, as trained, of {found['num_windows']:,} rows", found["score"], None, None)
    yield ""
    yield from _notes(found, live)


def _notes(found: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[str]:
    held = found["held_out"]
    columns = ", ".join(f"`{name}` {value:.2f}" for name, value in held["columns"].items())
    out, served = held["auc"]
    yield (
        "Training holds the row's own user out of all statistics, which serving cannot; the table "
        "compares with those that serving has. Held out, "
        f"{100 * held['share']:.0f} % of the values differ, the trees' logit by "
        f"{held['tree_logit']:.3f} on average, most of all (in standard deviations) {columns}. "
        f"The trees' AUC of these training rows is {out:.4f} held out and {served:.4f} as served."
    )
    same = "as expected" if live["same_events"] else "NOT as expected"
    yield ""
    yield (
        "The expert is a random one, so that margins differ (standard deviation "
        f"{found['margin_std']:.2f}). The windows of the other training rows show fewer events "
        f"than a prompt: their scores differ by {found['score_fewer']:.4f} on average. "
        f"Live: {live['num_late']:,} of the events came late, {live['num_repeated']:,} twice, with "
        f"another label; {live['num_stored']:,} were stored, every history {same}."
    )


def _row(name: str, *values: float | None) -> str:
    cells = ("" if value is None else f"{value:.1g}" for value in values)
    return f"| {name} | {' | '.join(cells)} |"
