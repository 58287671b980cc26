"""Figures and the table of prefilters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult

if TYPE_CHECKING:
    from benchmarks.prefilter.study import PrefilterStudy

_ALL = "0"


def figures(study: PrefilterStudy) -> dict[str, Any]:
    """All that was found; sizes as text, as in JSON."""
    found = asdict(study)
    return found | {"sizes": {str(size): each for size, each in found["sizes"].items()}}


def summary(result: BenchmarkResult) -> str:
    """The table, for the README."""
    return "\n".join(_summary(result.figures))


def _summary(found: Mapping[str, Any]) -> Iterator[str]:
    whole = found["sizes"][_ALL]
    yield (
        f"| `prefilter`, of {found['candidates']:.0f} candidates | CPU ms a ranking | of all "
        "| NDCG@10 | of the whole ranking's first ten |"
    )
    yield "|---|---|---|---|---|"
    for size, each in found["sizes"].items():
        name = "none: all are scored" if size == _ALL else size
        yield (
            f"| {name} | {each['cpu_ms']:.1f} | {each['cpu_ms'] / whole['cpu_ms']:.2f} "
            f"| {each['ndcg10']:.4f} | {100 * each['same_top']:.0f} % |"
        )
