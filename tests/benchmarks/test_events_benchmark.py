"""The benchmark of the event store, on a small one."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.events import study
from benchmarks.events.generated import generate, user_id
from benchmarks.events.report import figures, summary

from rankloom_features.event_store.sqlite import SqliteEventStore


def test_a_generated_store_has_the_users_and_about_the_events(tmp_path: Path) -> None:
    generate(tmp_path / "e.sqlite", 500, 20_000)
    with closing(SqliteEventStore(tmp_path / "e.sqlite")) as store:
        found = store.statistics()
        assert found.num_users == 500
        assert found.num_events == pytest.approx(20_000, rel=0.2)
        lengths = sorted(len(store.history(user_id(number)).events) for number in range(500))
        assert lengths[0] >= 1
        assert lengths[-1] > 5 * lengths[250]


def test_a_small_study_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "READS", 60)
    monkeypatch.setattr(study, "ROUNDS", 1)
    found = study.run_event_study(tmp_path, 300, 3_000)
    written = json.loads(json.dumps(figures(found, study.BATCH * study.BATCHES, study.SINGLE)))
    assert written["store"]["num_users"] == 300
    assert 0 < written["read_ms"]["p50"]["wall"] <= written["read_ms"]["p99"]["wall"]
    assert written["rates"]["bare"]["wall_s"] > written["rates"]["one_thread"]["wall_s"]
    result = BenchmarkResult(
        room="events", facts=RunFacts.now(), dtype="float32", settings={}, figures=written
    )
    assert "of 300 users" in summary(result)
