"""What several bundles serve is compared as a mean over them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.seeds.__main__ import main
from benchmarks.seeds.study import figures_of, scored_by, summary

from rankloom_training.metrics import auc
from rankloom_training.visibility import Protocol


def test_differences_are_means_over_the_bundles(
    small_data: Path, bundle_folder: Path, served_folder: Path
) -> None:
    bundles = [bundle_folder, served_folder]
    found = scored_by(bundles, small_data, Protocol.P1, through_grpc=False)
    figures = json.loads(json.dumps(figures_of(found, found[::-1])))
    expected = [
        auc(each.label, each.scores["served"]) - auc(each.label, each.scores["lightgbm"])
        for each in found
    ]
    assert expected[0] != expected[1]
    gain = figures["served - lightgbm"]["auc"]
    assert gain["value"] == pytest.approx(sum(expected) / 2)
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert figures["served - others"]["auc"]["value"] == pytest.approx(0.0), "two, turned round"
    result = BenchmarkResult(
        room="seeds",
        facts=RunFacts.now(),
        dtype="float32",
        settings={"bundles": len(found)},
        figures=figures,
    )
    title, *rows = summary(result).splitlines()
    assert "means of 2 bundles" in title
    assert len(rows) == 6


def test_others_are_as_many(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(bundle_folder)
    command = ["seeds", bundle, bundle, "--against", bundle, "--data", "log"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        main()
    assert "--against: name as many bundles" in capsys.readouterr().err
