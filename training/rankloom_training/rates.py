"""How fast stages ran on this machine, kept in the user's cache folder for later estimates."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import PositiveFloat, PositiveInt, TypeAdapter
from threadpoolctl import threadpool_limits

MIN_S = 5.0  # a shorter stage says nothing
MOST_TIMES = 20  # a rate holds for at most so many times the rows that it was measured with
# Seconds a row, by the kind of work of ``estimate.workloads``: a million rows on an AMD EPYC of two
# cores (benchmarks/results/stages), whose plain float32 matrix product reaches REFERENCE_GFLOPS.
REFERENCE_RATES = {
    "collaborative mf": 4.3e-4,
    "collaborative sasrec": 1.7e-3,
    "reviews": 2.8e-2,  # of 14,387 rows
    "router": 1e-6,
    "trees": 5.4e-4,
    "traces": 1e-2,
    "base embedded": 3.5e-3,
    "global embedded": 5.4e-3,
    "groups embedded": 6.3e-3,
    "calibrate embedded": 6.6e-2,
}
REFERENCE_GFLOPS = 70.0
_KEPT: TypeAdapter[dict[str, tuple[PositiveFloat, PositiveInt]]] = TypeAdapter(
    dict[str, tuple[PositiveFloat, PositiveInt]]
)
_SIZE, _LONG_ENOUGH_S = 512, 0.1


@dataclass(frozen=True, slots=True)
class Rates:
    """How long each kind of work takes.

    ``kept``: kind → seconds and rows of its last run on this machine. ``scaled``: seconds a row.
    """

    kept: Mapping[str, tuple[float, int]]
    scaled: Mapping[str, float]

    @classmethod
    def of_this_machine(cls) -> Rates:
        """What was kept, and the reference's rates scaled by a trial of 0.1 s."""
        slower = REFERENCE_GFLOPS / matmul_gflops()
        scaled = {kind: rate * slower for kind, rate in REFERENCE_RATES.items()}
        return cls(_read(_rates_file()), scaled)

    def is_measured(self, kind: str, rows: int) -> bool:
        """Whether an earlier run here had enough rows to say something about so many."""
        return kind in self.kept and rows <= MOST_TIMES * self.kept[kind][1]

    def seconds(self, kind: str, rows: int) -> float | None:
        """None if nothing is known. A run of few rows is believed only if there is no other."""
        if kind in self.kept and (self.is_measured(kind, rows) or kind not in self.scaled):
            seconds, of_rows = self.kept[kind]
            return seconds / of_rows * rows
        return self.scaled[kind] * rows if kind in self.scaled else None


def remember(kind: str, rows: int, seconds: float) -> None:
    """Keeps the speed of a stage that ran to its end. A folder that cannot be written is left."""
    if seconds < MIN_S or not rows:
        return
    path = _rates_file()
    text = json.dumps(_read(path) | {kind: (seconds, rows)}, indent=1, sort_keys=True)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text)
        unfinished.replace(path)


def matmul_gflops() -> float:
    """Speed of float32 matrix products, in 10⁹ operations a second: of one core, times the cores.

    On cores that are busy with other work, products on all of them wait for each other: a tenth of
    the speed, which no training is slowed down to.
    """
    one = np.ones((_SIZE, _SIZE), np.float32)
    done, started = 0, time.perf_counter()
    with threadpool_limits(1):
        while (taken := time.perf_counter() - started) < _LONG_ENOUGH_S:
            np.matmul(one, one)
            done += 1
    return len(os.sched_getaffinity(0)) * done * 2e-9 * _SIZE**3 / taken


def _rates_file() -> Path:
    """One file for each machine, since machines may share a home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "rankloom" / f"rates-{platform.node() or 'machine'}.json"


def _read(path: Path) -> dict[str, tuple[float, int]]:
    """Kind → seconds and rows. What is of another form is left out."""
    try:
        return dict(_KEPT.validate_json(path.read_bytes()))
    except (OSError, ValueError):
        return {}
