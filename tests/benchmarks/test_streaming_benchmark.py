"""Features of all users of a store, as a stream."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.events.streamed import EVERY, run_streaming, summary


def test_every_user_is_streamed_once(tmp_path: Path, bundle_folder: Path) -> None:
    found = json.loads(json.dumps(run_streaming(tmp_path, bundle_folder, 300, 3_000)))
    assert found["vectors"]["users"] == 300
    assert found["columns"]["users"] == 300 // EVERY
    assert 2_000 < found["vectors"]["events"] < 4_500
    assert 0 < found["before_mib"] <= found["most_mib"]
    result = BenchmarkResult(
        room="events-streaming", facts=RunFacts.now(), dtype="float32", settings={}, figures=found
    )
    assert "at most" in summary(result)
