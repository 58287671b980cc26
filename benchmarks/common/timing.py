"""Clocks, memory, work in turns, and progress on stderr."""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.machine import field_of


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one run: of all cores together, and on the wall."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, median and most of several measurements."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float], digits: int = 4) -> Spread:
        """Rounded to so many decimal places."""
        found = (min(values), statistics.median(values), max(values))
        return cls(*(round(each, digits) for each in found))


def timed(work: Callable[[], object]) -> Cost:
    """Runs it once. Collects garbage first, so that the work pays for none but its own."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def interleaved(
    works: Mapping[str, Callable[[], object]], rounds: int, title: str
) -> dict[str, list[Cost]]:
    """Every work once per round, in order, so that all meet the same load of the machine.

    A warm-up round, which fills caches, does not count.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for number in range(rounds + 1):
        label = f"round {number} of {rounds}" if number else "warm-up"
        for name, work in works.items():
            progress(f"{title}, {label}: {name}")
            cost = timed(work)
            if number:
                costs[name].append(cost)
    return costs


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' own ratios, which the machine's load moves least."""
    return round(statistics.median(round_ratios(above, below)), 3)


def round_ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def progress(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)


def stolen_s() -> float:
    """Seconds of this machine's cores that its host gave to others, since it was started."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def rss_mib() -> float:
    """Resident memory of this process."""
    gc.collect()
    return float(field_of(Path("/proc/self/status"), "VmRSS").split()[0]) / 1024
