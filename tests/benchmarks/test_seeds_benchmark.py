"""What several bundles serve is compared as a mean over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.seeds.study import figures_of, scored_by, summary

from rankloom_training.metrics import auc
from rankloom_training.visibility import Protocol


def test_differences_are_means_over_the_bundles(
    small_data: Path, bundle_folder: Path, served_folder: Path
) -> None:
    bundles = [bundle_folder, served_folder]
    found = scored_by(bundles, small_data, Protocol.P1, through_grpc=False)
    figures = json.loads(json.dumps(figures_of(found)))
    expected = [
        auc(each.label, each.scores["served"]) - auc(each.label, each.scores["lightgbm"])
        for each in found
    ]
    assert expected[0] != expected[1]
    gain = figures["served - lightgbm"]["auc"]
    assert gain["value"] == pytest.approx(sum(expected) / 2)
    assert gain["low"] <= gain["value"] <= gain["high"]
    result = BenchmarkResult(
        room="seeds",
        facts=RunFacts.now(),
        dtype="float32",
        settings={"bundles": len(found)},
        figures=figures,
    )
    title, *rows = summary(result).splitlines()
    assert "means of 2 bundles" in title
    assert len(rows) == 5
