"""The evidence of an explanation as a small bar chart."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rankloom._cli.alignment import aligned, visible
from rankloom._results import Evidence

MAX_BARS = 10
BAR_WIDTH = 20  # characters of the longest bar


def evidence_chart(evidence: Sequence[Evidence]) -> Iterable[str]:
    """Yield one line for each of the strongest events, strongest first; none without evidence."""
    strongest = sorted(evidence, key=lambda each: -abs(each.influence))[:MAX_BARS]
    if not strongest:
        return
    longest = abs(strongest[0].influence) or 1.0
    rows = [("evidence", "", "influence", ""), *(_row(each, longest) for each in strongest)]
    yield from aligned(rows, "<<><")


def _row(evidence: Evidence, longest: float) -> tuple[str, str, str, str]:
    length = max(1, round(BAR_WIDTH * abs(evidence.influence) / longest))
    return (
        visible(evidence.item_id),
        "liked" if evidence.liked else "disliked",
        f"{evidence.influence:+.4f}",
        _block() * length,
    )


def _block() -> str:
    """A full block where the terminal's encoding has one."""
    try:
        "\N{FULL BLOCK}".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "\N{FULL BLOCK}"
