"""Stored explanations are timed on a server of its own, and checked while they are."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.stored.report import MEANINGS, figures, summary
from benchmarks.stored.study import run_stored_study


def test_each_kind_of_call_is_timed(served_folder: Path, tmp_path: Path) -> None:
    found = run_stored_study(served_folder, tmp_path, 500, 20)
    assert len(found.empty) == len(found.stored) == len(found.missing) == 20
    assert found.num_bytes > 500 * 200
    assert found.rss_mib > 50.0
    result = BenchmarkResult(
        room="stored",
        facts=RunFacts.now(),
        dtype="float32",
        settings={"turns": 20, "rationales": 500},
        figures=json.loads(json.dumps(figures(found))),
    )
    assert all(f"| {meaning} |" in summary(result) for meaning in MEANINGS.values())
