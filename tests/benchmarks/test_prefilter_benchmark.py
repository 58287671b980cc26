"""Prefilters are measured on a real server, beside whole rankings of the same items."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.prefilter.report import figures, summary
from benchmarks.prefilter.study import ALL, run_prefilter_study

from rankloom_training.data import load_dataset


async def test_each_size_is_measured(served_folder: Path, small_data: Path) -> None:
    found = await run_prefilter_study(served_folder, load_dataset(small_data), 4, (5, 40))
    assert found.num_users == 4
    assert found.sizes[5].scored == 5
    assert found.sizes[40].scored == found.sizes[ALL].scored == found.candidates
    assert found.sizes[40].ndcg10 == found.sizes[ALL].ndcg10 > 0.0
    assert found.sizes[40].same_top == 1.0
    result = BenchmarkResult(
        room="prefilter",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(found))),
    )
    assert "| none: all are scored |" in summary(result)
