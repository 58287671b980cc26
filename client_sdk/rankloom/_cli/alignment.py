"""Lines for a terminal: columns side by side, and text that cannot control it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def visible(text: str) -> str:
    """Replace control characters: text from outside must not control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def aligned(rows: Sequence[tuple[str, ...]], sides: str) -> Iterable[str]:
    """Yield the rows as lines with aligned columns; `sides` has "<" or ">" for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, sides, widths, strict=True)
        yield "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()
