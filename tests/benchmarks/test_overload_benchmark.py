"""Goodput counts what its caller still had a use for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.common.bundles import calls_of, with_random_decoder
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.common.workload import ModelShape
from benchmarks.overload.callers import CallEnd, OverloadOutcome
from benchmarks.overload.report import figures, summary, tables
from benchmarks.overload.study import LOADS, OverloadPlan, run_overload_study
from benchmarks.serve.in_process import server_settings


def test_goodput_is_answers_per_second_after_the_first_deadline() -> None:
    ends = (
        CallEnd("OK", 0.0, 0.5),  # before the queue is as it stays
        CallEnd("OK", 1.0, 2.0),
        CallEnd("OK", 2.0, 3.5),
        CallEnd("RESOURCE_EXHAUSTED", 3.0, 3.01),
        CallEnd("OK", 5.5, 6.5),  # after the last call was due
    )
    outcome = OverloadOutcome(1.0, 6.0, 2.0, ends)
    assert outcome.goodput == pytest.approx(2 / 4)
    assert outcome.codes == {"OK": 4, "RESOURCE_EXHAUSTED": 1}
    assert outcome.seconds_to("RESOURCE_EXHAUSTED") == pytest.approx([0.01])


def test_a_server_is_measured_under_every_load(bundle_folder: Path, tmp_path: Path) -> None:
    shape = ModelShape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    with_random_decoder(bundle_folder, tmp_path / "bundle", shape)
    settings = server_settings(tmp_path / "bundle", "float32", 1)
    plan = OverloadPlan(0.6, rounds=1, deadline_s=0.2)
    found = run_overload_study(settings, calls_of(tmp_path / "bundle")[:8], plan)
    assert [each.load for each in found.runs] == list(LOADS)
    for each in found.runs:
        assert each.peak > 0.0
        assert len(each.outcome.ends) == max(1, round(each.outcome.rate * 0.8))
        assert "OK" in each.outcome.codes
        assert each.outcome.codes.keys() <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    result = BenchmarkResult(
        room="overload",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(found))),
    )
    assert len(summary(result).splitlines()) == 2 + len(LOADS)
    assert "| load | peak, calls/s |" in tables(result)
