"""The study of collaborative models: who likes what can be learnt is told from noise."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.collaborative.study import study, summary
from benchmarks.common.results import BenchmarkResult, RunFacts

from rankloom_training.data import load_dataset
from rankloom_training.visibility import Protocol


def test_models_are_judged_on_rows_that_they_did_not_see(small_data: Path) -> None:
    found = study(load_dataset(small_data), Protocol.P1, ["mf", "lightgcn"], 2)
    for of_split in found.values():
        assert set(of_split) == {"valid", "test"}
        for metrics in of_split.values():
            assert all(each["low"] <= each["high"] for each in metrics.values())
    assert found["mf"]["test"]["auc"]["value"] > 0.65  # even users like even items
    assert found["mf"] != found["lightgcn"]
    result = BenchmarkResult(
        room="collaborative", facts=RunFacts.now(), dtype="float32", settings={}, figures=found
    )
    header, first, second = summary(result).splitlines()
    assert header.split() == ["valid", "AUC", "valid", "UAUC", "test", "AUC", "test", "UAUC"]
    assert (first.split()[0], second.split()[0]) == ("mf", "lightgcn")


def test_an_unknown_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.collaborative.__main__ import main

    monkeypatch.setattr("sys.argv", ["collaborative", "--data", "log", "svd"])
    with pytest.raises(SystemExit):
        main()
    assert "no such model: svd; choose from" in capsys.readouterr().err
