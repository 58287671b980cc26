"""What a server computes at a moment of the log is what training computed for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.replay.offline import OfflineLog
from benchmarks.replay.report import LIMIT, SCORE_LIMIT, figures, summary
from benchmarks.replay.study import ReplayStudy, run_replay_study

from rankloom_training.data import load_dataset

NUM_ROWS, NUM_EVENTS = 30, 400


@pytest.fixture(scope="module")
def found(bundle_folder: Path, finished_stages: Path, small_data: Path) -> ReplayStudy:
    dataset = load_dataset(small_data)
    study = run_replay_study(bundle_folder, finished_stages, dataset, NUM_ROWS, NUM_EVENTS)
    return asyncio.run(study)


def test_features_and_scores_of_rows_equal_those_served(found: ReplayStudy) -> None:
    for rows in (found.train, found.valid):
        assert rows.num_rows == NUM_ROWS
        assert max(rows.vector, rows.tabular, rows.user_model, rows.tree_logit) <= LIMIT
        assert rows.evaluated <= SCORE_LIMIT
    assert found.num_windows > NUM_ROWS // 2
    assert found.score <= SCORE_LIMIT
    assert found.margin_std > 100 * SCORE_LIMIT  # else equal scores would show little


def test_holding_users_out_is_the_difference_that_remains(found: ReplayStudy) -> None:
    assert found.held_out.share > 0.1
    assert found.held_out.tree_logit > 0.0


def test_late_and_repeated_events_give_the_features_of_the_whole_history(
    found: ReplayStudy,
) -> None:
    live = found.live
    assert live.num_late > NUM_EVENTS // 2
    assert (live.num_sent, live.num_repeated) == (NUM_EVENTS * 11 // 10, NUM_EVENTS // 10)
    assert live.num_stored == NUM_EVENTS
    assert live.same_events
    assert max(live.vector, live.tabular) <= LIMIT


def test_a_bundle_with_experts_of_groups_is_refused(
    served_folder: Path, finished_stages: Path, small_data: Path
) -> None:
    with pytest.raises(ValueError, match="train them for 0 epochs"):
        OfflineLog(served_folder, finished_stages, load_dataset(small_data), seed=0)


def test_the_table_has_every_comparison(found: ReplayStudy) -> None:
    result = BenchmarkResult(
        room="replay",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(found))),
    )
    text = summary(result)
    assert "| user vector |" in text
    assert "every history as expected" in text
