"""The cost of evidence is measured against a ranking of the same run."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.common.workload import ModelShape
from benchmarks.explain.report import figures, summary
from benchmarks.explain.study import KINDS, NUM_EVENTS, run_explain_study


def test_evidence_and_words_are_measured(bundle_folder: Path, tmp_path: Path) -> None:
    shape = ModelShape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    found = run_explain_study(bundle_folder, tmp_path, shape, num=2)
    assert found.evidence.keys() == KINDS.keys()
    for runs in found.evidence.values():
        assert [run.num_events for run in runs] == [NUM_EVENTS] * 2
        assert min(run.ranking_s for run in runs) > 0.0
    assert {run.num_mixtures for run in found.evidence["fused_alike"]} == {1}
    assert all(0.0 < run.choose_s < run.step_s for run in found.words)
    result = BenchmarkResult(
        room="explain",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(found))),
    )
    assert len(summary(result).splitlines()) == 2 + len(KINDS) + 1
