"""Evaluation: through gRPC as in the process, and reports that say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rankloom_adapters.bundle import open_bundle
from rankloom_training import reporting
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.evaluate import ProtocolError, ScoredRows, report, score_test
from rankloom_training.metrics import expected_calibration_error
from rankloom_training.visibility import Protocol

KEYS = ["served", "cf", "lightgbm", "global", "fused"]


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


@pytest.fixture(scope="module")
def dataset(small_data: Path) -> Dataset:
    return load_dataset(small_data)


@pytest.fixture(scope="module")
def scored(served_folder: Path, dataset: Dataset) -> ScoredRows:
    bundle = open_bundle(served_folder)
    return score_test(bundle, dataset, Protocol.P1, through_grpc=False, on_step=quiet)


def test_scores_through_grpc_equal_those_in_the_process(
    served_folder: Path, dataset: Dataset, scored: ScoredRows
) -> None:
    bundle = open_bundle(served_folder)
    served = score_test(bundle, dataset, Protocol.P1, through_grpc=True, on_step=quiet)
    assert np.array_equal(served.rows, scored.rows)
    assert np.abs(served.scores["served"] - scored.scores["served"]).max() <= 1e-5


def test_every_test_row_is_scored_once(dataset: Dataset, scored: ScoredRows) -> None:
    assert np.array_equal(np.sort(scored.rows), np.flatnonzero(dataset.log.split == 2))
    assert list(scored.scores) == KEYS
    assert all(np.isfinite(score).all() for score in scored.scores.values())


def test_some_test_rows_can_be_scored_alone_and_the_report_says_so(
    served_folder: Path, dataset: Dataset, scored: ScoredRows
) -> None:
    bundle = open_bundle(served_folder)
    some = score_test(bundle, dataset, Protocol.P1, through_grpc=False, on_step=quiet, max_rows=40)
    assert 0 < len(some.rows) <= 40
    at = np.isin(scored.rows, some.rows)
    assert set(scored.user[~at]).isdisjoint(some.user)
    assert np.abs(scored.scores["served"][at] - some.scores["served"]).max() <= 1e-5
    console = Console(record=True, width=160)
    reporting.show(console, report(some, Protocol.P1, bundle, len(scored.rows)), {})
    assert f"{len(some.rows)} of {len(scored.rows)} test rows" in console.export_text()


def test_the_report_has_its_keys_as_json_and_as_a_plot(
    served_folder: Path, scored: ScoredRows, tmp_path: Path
) -> None:
    found = report(scored, Protocol.P1, open_bundle(served_folder), len(scored.rows))
    reporting.write_json(found, {}, tmp_path / "report.json")
    fields = json.loads((tmp_path / "report.json").read_text())
    for key in KEYS:
        for metric in ("auc", "uauc", "ndcg5", "map5"):
            estimate = fields[key][metric]
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert fields["protocol"] == "p1"
    assert fields["rows"] == len(scored.rows)
    raw = 1.0 / (1.0 + np.exp(-scored.scores["served"]))
    ece = expected_calibration_error(scored.label, raw)
    assert fields["calibration"]["ece_before"] == pytest.approx(ece)
    reporting.write_plot(found, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_name_the_rows_and_the_protocol(served_folder: Path, scored: ScoredRows) -> None:
    console = Console(record=True, width=160)
    found = report(scored, Protocol.P1, open_bundle(served_folder), len(scored.rows))
    reporting.show(console, found, {})
    text = console.export_text()
    assert f"{len(scored.rows)} test rows" in text
    assert f"{100 * scored.label.mean():.1f} % likes, protocol p1" in text
    assert f"served probability {found.calibration['ece_after']:.4f}" in text
    assert "cold rows" in text


def test_another_protocol_is_refused(served_folder: Path, dataset: Dataset) -> None:
    with pytest.raises(ProtocolError, match="p1"):
        score_test(
            open_bundle(served_folder), dataset, Protocol.P0, through_grpc=False, on_step=quiet
        )
