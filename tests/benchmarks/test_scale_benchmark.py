"""How a training's cost grows: what is measured at each size, and the exponent."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.scale.one_size import StepCost, costs_of
from benchmarks.scale.report import exponent, figures, summary

ROOT = Path(__file__).parents[2]
PEAKS = """
from benchmarks.scale.one_size import CostedProgress

progress = CostedProgress()
progress.timed("large", lambda: len(b"1" * (256 << 20)))
progress.timed("small", lambda: None)
print(*(progress.costs[name].peak_mib for name in ("large", "small")))
"""


def test_the_exponent_is_that_of_the_last_two_sizes() -> None:
    assert exponent([10, 100, 1000], [5.0, 2.0, 20.0]) == pytest.approx(1.0)
    assert exponent([10, 40], [1.0, 2.0]) == pytest.approx(0.5)


def test_a_step_has_the_peak_of_its_own_memory() -> None:
    """In a process of its own: one that has freed much need not grow."""
    printed = subprocess.check_output([sys.executable, "-c", PEAKS], text=True, cwd=ROOT)
    large, small = map(float, printed.split())
    assert large >= small + 200


def test_all_steps_of_a_small_log_are_measured(tmp_path: Path) -> None:
    found = costs_of(tmp_path, 2000, 50)
    assert list(found) == ["data", "collaborative", "trees", "router", "events"]
    assert all(cost.cpu_s > 0 and cost.peak_mib > 100 for cost in found.values())
    assert found["trees"].note.startswith("AUC ")


def test_the_table_shows_sizes_and_growth() -> None:
    costs = [{"trees": dataclasses.asdict(StepCost(cpu, 1.0, mib, "AUC"))} for cpu, mib in
             ((1.0, 600.0), (10.0, 700.0), (105.0, 1600.0))]  # fmt: skip
    sizes = [10_000, 100_000, 1_000_000]
    result = BenchmarkResult(
        room="scale",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(sizes, costs))),
    )
    table = summary(result)
    assert "| trees | 1.0 s, 0.59 GiB | 10.0 s, 0.68 GiB | 105.0 s, 1.56 GiB | 1.02 |" in table
    assert "From 100,000 rows to 1,000,000 rows, a row takes 1,049 bytes more." in table
