"""Figures and tables of what retrieval costs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.retrieve.study import RetrieveStudy

MAX_OVER_BARE, MAX_ADDED, MIN_RECALL = 1.3, 0.1, 0.95


def figures(study: RetrieveStudy) -> dict[str, Any]:
    """Medians in milliseconds, and their ratios."""
    cells, recommend = study.cells, study.recommend
    rank_ms, recommend_ms = _ms(recommend.rank), _ms(recommend.recommend)
    return {
        "sizes": [
            {
                "items": each.num_items,
                **{f"{name}_ms": _ms(getattr(each, name)) for name in _KINDS},
                "search_over_bare": round(_ms(each.search) / _ms(each.bare), 3),
                "call_over_bare_call": round(
                    _ms(each.call) / (_ms(each.empty) + _ms(each.bare)), 3
                ),
            }
            for each in study.sizes
        ],
        "cells": {
            "items": cells.num_items,
            "cells": cells.num_cells,
            "probes": cells.num_probes,
            "recall": round(cells.recall, 4),
            "build_s": round(cells.build_s, 1),
            "bare_ms": _ms(cells.bare),
            "search_ms": _ms(cells.search),
            "search_over_bare": round(_ms(cells.search) / _ms(cells.bare), 3),
        },
        "recommend": {
            "items": recommend.num_items,
            "rank_ms": rank_ms,
            "recommend_ms": recommend_ms,
            "added": round(recommend_ms / rank_ms - 1.0, 3),
        },
    }


_KINDS = ("bare", "search", "call", "empty", "waited")


def summary(result: BenchmarkResult) -> str:
    """The tables for the README."""
    return "\n".join(_summary(result))


def _summary(result: BenchmarkResult) -> Iterator[str]:
    found = result.figures
    yield (
        "| items | bare faiss | whole search | ratio, ≤ "
        f"{MAX_OVER_BARE:g} | empty call | `Retrieve` | ÷ (empty call + bare faiss) | waited |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for each in found["sizes"]:
        yield (
            f"| {each['items']:,} | {each['bare_ms']:.2f} | {each['search_ms']:.2f} | "
            f"{each['search_over_bare']:.2f} | {each['empty_ms']:.2f} | {each['call_ms']:.2f} | "
            f"{each['call_over_bare_call']:.2f} | {each['waited_ms']:.1f} |"
        )
    cells = found["cells"]
    yield (
        f"| {cells['items']:,} in {cells['cells']:,} cells, {cells['probes']} probed | "
        f"{cells['bare_ms']:.2f} | {cells['search_ms']:.2f} | {cells['search_over_bare']:.2f} "
        "| | | | |"
    )
    yield ""
    recommend = found["recommend"]
    yield (
        f"Recall of the cells: {cells['recall']:.3f}, at least {MIN_RECALL:g} is wanted; they took "
        f"{cells['build_s']:.0f} s to build. `Recommend` of 20 from {recommend['items']:,} items "
        f"takes {recommend['recommend_ms']:.0f} ms and `Rank` of the same 100 candidates "
        f"{recommend['rank_ms']:.0f} ms: {100 * recommend['added']:+.0f} %, at most "
        f"{100 * MAX_ADDED:+.0f} % is wanted."
    )


def _ms(seconds: Sequence[float]) -> float:
    return round(1e3 * statistics.median(seconds), 3)
