"""Figures and table of the kills."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.results import BenchmarkResult
from benchmarks.common.timing import Spread

if TYPE_CHECKING:
    from benchmarks.kills.study import KillStudy

MAX_START_S = 5.0  # within which a tiny bundle must serve again


def figures(study: KillStudy) -> dict[str, Any]:
    """Everything that was found."""
    return {
        "kills": len(study.seconds),
        "lost": len(study.lost),
        "examples": list(study.lost[:10]),
        "acknowledged": study.num_acknowledged,
        "start_s": {
            **asdict(Spread.of(study.seconds, digits=2)),
            "over": sum(each > MAX_START_S for each in study.seconds),
        },
        "seconds": [round(each, 3) for each in study.seconds],
    }


def summary(result: BenchmarkResult) -> str:
    """What was found beside the limit for it."""
    found, start = result.figures, result.figures["start_s"]
    return "\n".join(
        [
            "| kill -9 at random | | limit |",
            "|---|---|---|",
            f"| kills | {found['kills']} | |",
            f"| commands acknowledged | {found['acknowledged']:,} | |",
            f"| lost, or not as acknowledged | {found['lost']} | 0 |",
            f"| start to first answer, median | {start['median']:.1f} s | |",
            f"| least and most | {start['least']:.1f} to {start['most']:.1f} s | |",
            f"| starts over {MAX_START_S:.0f} s | {start['over']} | 0 |",
        ]
    )
