"""The table of what is retrieved and recommended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.common.results import BenchmarkResult


def summary(result: BenchmarkResult) -> str:
    """A row for each way, for the README."""
    return "\n".join(_summary(result))


def _summary(result: BenchmarkResult) -> Iterator[str]:
    figures = result.figures
    yield f"{result.settings['data']}; {figures['users']} users, {figures['items']} items."
    yield ""
    yield "| retrieved by | Recall@100 | less popularity's |"
    yield "|---|---|---|"
    for name, found in figures["recall100"].items():
        yield f"| {name} | {_shown(found['value'])} | {_shown(found['less'])} |"
    yield ""
    yield "| first ten | NDCG@10 | `recommend` less it |"
    yield "|---|---|---|"
    for name, found in figures["ndcg10"].items():
        yield f"| {name} | {_shown(found['value'])} | {_shown(found['less'])} |"


def _shown(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return ""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"
