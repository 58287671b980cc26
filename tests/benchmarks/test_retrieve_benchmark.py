"""What retrieval costs is measured on real servers, and swaps are checked answer by answer."""

from __future__ import annotations

import json
import math
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.retrieve import live_report, quality_report, report
from benchmarks.retrieve.freshness import run_freshness_study
from benchmarks.retrieve.quality_study import RECOMMEND, run_quality_study
from benchmarks.retrieve.study import (
    RetrieveStudy,
    run_cell_study,
    run_recommend_study,
    run_size_study,
)
from benchmarks.retrieve.swaps import (
    KnownAnswers,
    RetrievalCall,
    RetrievalOutcome,
    SwapCounts,
    swap_study,
)
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
    study = RetrieveStudy([size], cells, recommend)
    shown = report.summary(result_of(report.figures(study)))
    assert "| 2,000 |" in shown


def test_an_item_comes_and_goes_with_its_bundle_and_no_answer_mixes_revisions(
    served_folder: Path, tmp_path: Path
) -> None:
    counts = swap_study(served_folder, tmp_path, 2)
    assert (counts.swaps, counts.faults) == (2, 0), counts
    # Each revision answered calls that began after its promotion.
    assert counts.retrievals + counts.recommendations >= 2 * 8
    assert min(counts.retrievals, counts.recommendations) > 0


async def test_an_event_is_in_the_very_next_retrieval(served_folder: Path, tmp_path: Path) -> None:
    fresh = await run_freshness_study(served_folder, tmp_path, 5)
    assert fresh.calls == [1] * 5
    assert max(fresh.seconds) < 1.0
    figures = live_report.figures(fresh, SwapCounts(swaps=3, retrievals=9, recommendations=4))
    shown = live_report.summary(result_of(figures))
    assert "| swaps; retrievals and recommendations checked | 3; 9 and 4 |  |" in shown
    assert "| failed, mixed, stale | 0, 0, 0 | all 0 |" in shown


def test_faults_are_counted() -> None:
    call = RetrievalCall("u", recommends=True)
    known = KnownAnswers(1, {call: {"a": 1.0, "b": 0.5}}, {call: {"a": 1.5, "c": 0.5}})
    timeline, counts = Timeline(1), SwapCounts()
    timeline.switched(2, 10.0, 11.0)
    for sent, revision, scores in (
        (1.0, 1, {"b": 0.5, "a": 1.00001}),
        (10.5, 2, {"a": 1.5, "c": 0.5}),
        (12.0, 1, {"a": 1.0, "b": 0.5}),  # stale
        (12.0, 2, {"a": 1.0, "b": 0.5}),  # mixed: items and scores of the other
        (12.0, 2, {"a": 1.5, "b": 0.5}),  # mixed: items of the other
        (12.0, 2, {"a": 1.0, "c": 0.5}),  # mixed: a score of the other
        (1.0, 2, {"a": 1.5, "c": 0.5}),  # before it was promoted
    ):
        counts.check(RetrievalOutcome(call, sent, sent + 0.1, revision, scores), known, timeline)
    assert (counts.recommendations, counts.mixed, counts.stale, counts.failed) == (7, 3, 2, 0)
    assert len(counts.examples) == 5


def test_what_is_retrieved_is_compared(served_folder: Path, small_data: Path) -> None:
    models = ("mf-ratings", "mf-likes")  # the others take ten times as long to fit
    figures = run_quality_study(served_folder, small_data, num_users=6, models=models)
    recalls = {name: each["value"]["value"] for name, each in figures["recall100"].items()}
    assert len(recalls) == 2 + len(models)
    assert set(recalls.values()) == {1.0}, "there are fewer than 100 items"
    assert all(0.0 <= each["value"]["value"] <= 1.0 for each in figures["ndcg10"].values())
    assert math.isfinite(figures["ndcg10"][RECOMMEND]["value"]["value"])
    assert quality_report.summary(result_of(figures)).count("\n") > len(recalls)
