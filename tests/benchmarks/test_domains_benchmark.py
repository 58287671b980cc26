"""Two domains are trained, a third one is added, and every mixture is scored on each."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.domains.report import figures, summary
from benchmarks.domains.study import MIXTURES, run_domains_study

from rankloom_training.options import Recipe, TrainOptions
from rankloom_training.progress import Progress

OPTIONS = TrainOptions(
    base_epochs=1,
    global_recipe=Recipe(epochs=1, learning_rate=1e-3),
    group_recipe=Recipe(epochs=1, learning_rate=5e-4),
    lm_rows=300,
    trace_share=0.0,
)


def test_each_domain_has_a_table(tmp_path: Path) -> None:
    found = run_domains_study(tmp_path, None, 12, OPTIONS, Progress())
    assert {"books", "films"} <= found.two.keys()
    assert found.added.keys() == {"games"}
    for table in (*found.two.values(), *found.added.values()):
        assert list(table.auc) == [*MIXTURES, "trees"]
        assert table.rows > 0
    assert found.largest_change < 1e-3
    result = BenchmarkResult(
        room="domains",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(found))),
    )
    assert "| games, added |" in summary(result)
