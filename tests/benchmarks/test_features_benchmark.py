"""What features cost is measured on a real server; an event is in the ranking after it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.features.report import RATIOS, figures, summary
from benchmarks.features.study import run_features_study

from rankloom_features.event_store.sqlite import copy_events
from rankloom_features.event_store.store import events_beside


async def test_each_kind_of_call_is_measured(served_folder: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(served_folder, tmp_path / "bundle"))
    copy_events(events_beside(served_folder), events_beside(bundle))
    found = await run_features_study(bundle, num=3)
    assert all(len(times) == 3 and min(times) > 0.0 for times in asdict(found).values())
    result = BenchmarkResult(
        room="features",
        facts=RunFacts.now(),
        dtype="float32",
        settings={},
        figures=json.loads(json.dumps(figures(found))),
    )
    assert len(summary(result).splitlines()) == 2 + len(RATIOS) + 2
