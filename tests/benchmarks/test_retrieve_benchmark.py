"""What retrieval costs is measured on real servers, and swaps are checked answer by answer."""

from __future__ import annotations

import json
import math
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.retrieve import quality_report, report
from benchmarks.retrieve.quality import MODELS
from benchmarks.retrieve.quality_study import RECOMMEND, run_quality_study
from benchmarks.retrieve.study import (
    RetrieveStudy,
    run_cell_study,
    run_recommend_study,
    run_size_study,
    swap_study,
)
from benchmarks.retrieve.swaps import RetrievalOutcome, SwapCounts
from benchmarks.swap.checker import Timeline


def result_of(figures: object) -> BenchmarkResult:
    return BenchmarkResult(
        room="retrieve",
        facts=RunFacts.now(),
        dtype="float32",
        settings={"data": "a small log"},
        figures=json.loads(json.dumps(figures)),
    )


async def test_searches_calls_and_cells_are_measured(served_folder: Path) -> None:
    size = await run_size_study(served_folder, 2_000, 3)
    assert all(len(each) == 3 for each in (size.bare, size.search, size.call, size.empty))
    recommend = await run_recommend_study(served_folder, 2_000, 2)
    cells = run_cell_study(served_folder, 4_000, 3)
    assert cells.recall > 0.9
    study = RetrieveStudy([size], cells, recommend, SwapCounts(swaps=1, answers=9))
    shown = report.summary(result_of(report.figures(study)))
    assert "| 2,000 |" in shown
    assert "9 answers, 0 failed, 0 mixed, 0 stale" in shown


def test_an_item_comes_and_goes_with_its_bundle_and_no_answer_mixes_revisions(
    served_folder: Path, tmp_path: Path
) -> None:
    counts = swap_study(served_folder, tmp_path, 2)
    assert (counts.swaps, counts.faults) == (2, 0), counts
    assert counts.answers >= 2 * 8  # each revision answered calls that began after its promotion


def test_faults_are_counted() -> None:
    timeline, counts = Timeline(1), SwapCounts()
    timeline.switched(2, 10.0, 11.0)
    for answer in (
        RetrievalOutcome(1.0, 2.0, 1, has_added=False),
        RetrievalOutcome(10.5, 10.6, 2, has_added=True),
        RetrievalOutcome(12.0, 13.0, 1, has_added=False),  # stale
        RetrievalOutcome(12.0, 13.0, 2, has_added=False),  # mixed
        RetrievalOutcome(1.0, 2.0, 2, has_added=True),  # before it was promoted
    ):
        counts.check(answer, 1, timeline)
    assert (counts.answers, counts.mixed, counts.stale, counts.failed) == (5, 1, 2, 0)


def test_what_is_retrieved_is_compared(served_folder: Path, small_data: Path) -> None:
    figures = run_quality_study(served_folder, small_data, num_users=6, models=MODELS)
    recalls = {name: each["value"]["value"] for name, each in figures["recall100"].items()}
    assert len(recalls) == 2 + len(MODELS)
    assert set(recalls.values()) == {1.0}, "there are fewer than 100 items"
    assert all(0.0 <= each["value"]["value"] <= 1.0 for each in figures["ndcg10"].values())
    assert math.isfinite(figures["ndcg10"][RECOMMEND]["value"]["value"])
    assert quality_report.summary(result_of(figures)).count("\n") > len(recalls)
