"""The table of the canaries."""

from __future__ import annotations

from benchmarks.common.results import BenchmarkResult


def summary(result: BenchmarkResult) -> str:
    """A row for each kind of canary."""
    lines = [
        "| canary | runs | rolled back within 3 checks | rolled back | τ with the bundle | gate |",
        "|---|---|---|---|---|---|",
    ]
    for each in result.figures["canaries"]:
        most = sorted(each["gates"].items(), key=lambda pair: -pair[1])[:2]
        gates = ", ".join(f"{gate} {num}" for gate, num in most) or "none"
        cells = (each["name"], each["runs"], each["rolled_back_early"], each["rolled_back"])
        row = " | ".join(str(cell) for cell in cells)
        lines.append(f"| {row} | {each['kendall']:.2f} | {gates} |")
    return "\n".join(lines)
