"""Whatever befalls the feature service, every ranking is answered in time, and soon well again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.faults.levels import study_levels
from benchmarks.faults.report import BACK_LIMIT_S, figures, summary
from benchmarks.faults.study import CASES, FaultFigures, run_faults_study

from rankloom_adapters.bundle import open_bundle
from rankloom_training.data import load_dataset

DEADLINE_S, NUM = 2.0, 8
BUSY_S = 0.1  # how late a task may run on a busy machine


@pytest.fixture(scope="module")
def faults(served_folder: Path) -> dict[str, FaultFigures]:
    return asyncio.run(run_faults_study(served_folder, NUM, DEADLINE_S))


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_rankings_under_a_fault_are_answered(faults: dict[str, FaultFigures], name: str) -> None:
    found = faults[name]
    assert found.in_time == found.num == NUM, found.answers
    assert found.feature_share <= 0.3 + BUSY_S / DEADLINE_S
    assert found.open_ms is None or found.open_ms < 1e3 * BUSY_S
    assert found.back_s <= BACK_LIMIT_S


def test_both_tables_are_shown(
    faults: dict[str, FaultFigures], bundle_folder: Path, small_data: Path
) -> None:
    levels = study_levels(open_bundle(bundle_folder), load_dataset(small_data))
    assert list(levels) == ["EXACT_MIXTURE", "GLOBAL_EXPERT", "TREES", "POPULARITY"]
    assert levels["TREES"].ndcg10 > levels["POPULARITY"].ndcg10
    result = BenchmarkResult(
        room="faults",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(faults, levels))),
    )
    text = summary(result)
    assert "| dead | 8 of 8 | `POPULARITY, FEATURES_UNAVAILABLE` 8 |" in text
    assert "| `POPULARITY` |" in text
