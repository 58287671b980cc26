"""Evaluation: through gRPC as in the process, and reports that say what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rankloom_adapters.bundle import open_bundle
from rankloom_training import reporting
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.evaluate import OTHER_BUNDLE, Comparison, evaluate, report_of
from rankloom_training.metrics import auc, expected_calibration_error
from rankloom_training.progress import Progress
from rankloom_training.scored_rows import (
    ProtocolError,
    ScoredRows,
    requests_of_test,
    score_rows,
    scores_of_server,
)
from rankloom_training.scoring import BundleScorer
from rankloom_training.variants import Variant
from rankloom_training.visibility import Protocol

KEYS = ["served", "cf", "lightgbm", "global", "fused"]


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


@pytest.fixture(scope="module")
def dataset(small_data: Path) -> Dataset:
    return load_dataset(small_data)


@pytest.fixture(scope="module")
def scorer(served_folder: Path) -> BundleScorer:
    return BundleScorer(open_bundle(served_folder))


@pytest.fixture(scope="module")
def scored(scorer: BundleScorer, dataset: Dataset) -> ScoredRows:
    return score_rows(scorer, requests_of_test(dataset, Protocol.P1), quiet)


def test_scores_through_grpc_equal_those_in_the_process(
    served_folder: Path, dataset: Dataset, scored: ScoredRows
) -> None:
    served = scores_of_server(served_folder, requests_of_test(dataset, Protocol.P1), quiet)
    assert np.abs(served - scored.scores["served"]).max() <= 1e-5


def test_a_log_of_another_domain_is_scored_by_its_words(
    scorer: BundleScorer, small_data: Path, tmp_path: Path
) -> None:
    """No user and no item of it is known to the bundle."""
    for name in ("interactions.csv", "items.csv"):
        text = (small_data / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(re.sub(r"\b([iu]\d+),", r"other-\1,", text), encoding="utf-8")
    other = load_dataset(tmp_path)
    found = score_rows(scorer, requests_of_test(other, Protocol.P1, max_rows=60), quiet)
    assert all(np.isfinite(each).all() for each in found.scores.values())
    assert not found.scores["cf"].any()
    assert set(found.route) == {"global"}
    assert len(np.unique(found.scores["served"] - found.scores["lightgbm"])) > 1


def test_every_test_row_is_scored_once(dataset: Dataset, scored: ScoredRows) -> None:
    assert np.array_equal(np.sort(scored.rows), np.flatnonzero(dataset.log.split == 2))
    assert list(scored.scores) == KEYS
    assert all(np.isfinite(score).all() for score in scored.scores.values())


def test_some_test_rows_can_be_scored_alone_and_the_report_says_so(
    scorer: BundleScorer, dataset: Dataset, scored: ScoredRows
) -> None:
    some = score_rows(scorer, requests_of_test(dataset, Protocol.P1, 40), quiet)
    assert 0 < len(some.rows) <= 40
    at = np.isin(scored.rows, some.rows)
    assert set(scored.user[~at]).isdisjoint(some.user)
    assert np.abs(scored.scores["served"][at] - some.scores["served"]).max() <= 1e-5
    console = Console(record=True, width=160)
    reporting.show(
        console, report_of(some, Protocol.P1, scorer.loaded.bundle, len(scored.rows)), {}
    )
    assert f"{len(some.rows)} of {len(scored.rows)} test rows" in console.export_text()


def test_the_report_has_its_keys_as_json_and_as_a_plot(
    served_folder: Path, scored: ScoredRows, tmp_path: Path
) -> None:
    found = report_of(scored, Protocol.P1, open_bundle(served_folder), len(scored.rows))
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
    found = report_of(scored, Protocol.P1, open_bundle(served_folder), len(scored.rows))
    reporting.show(console, found, {})
    text = console.export_text()
    assert f"{len(scored.rows)} test rows" in text
    assert f"{100 * scored.label.mean():.1f} % likes, protocol p1" in text
    assert f"served probability {found.calibration['ece_after']:.4f}" in text
    assert "cold rows" in text


def test_another_protocol_is_refused(served_folder: Path, small_data: Path) -> None:
    with pytest.raises(ProtocolError, match="trained under p1; pass --protocol p1"):
        evaluate(served_folder, small_data, Protocol.P0, through_grpc=False, progress=Progress())


VARIANTS = ("no-experts", "single", "peft-linear", "temperature=5", "max-experts=1")


@pytest.fixture(scope="module")
def varied(scorer: BundleScorer, dataset: Dataset) -> ScoredRows:
    """All are scored in one go, so that one progress says how much is left."""
    steps = list[tuple[int, int]]()
    variants = [Variant.of_text(text) for text in VARIANTS]
    requests = requests_of_test(dataset, Protocol.P1, 60)
    found = score_rows(scorer, requests, lambda *step: steps.append(step), variants)
    assert len({total for _, total in steps}) == 1
    assert steps[-1][0] == steps[-1][1]
    return found


def test_variants_are_scored_beside_the_served_mixture(varied: ScoredRows) -> None:
    """Experts differ in this bundle, so mixtures do."""
    assert list(varied.scores) == [*KEYS, *VARIANTS]
    scores, single = varied.scores, varied.route == "single"
    for name in VARIANTS:
        assert np.isfinite(scores[name]).all()
    assert np.abs(scores["no-experts"] - scores["served"]).max() > 1e-3
    assert np.abs(scores["single"] - scores["served"])[single].max() <= 1e-5
    assert np.abs(scores["peft-linear"] - scores["served"])[single].max() <= 1e-4
    assert np.abs(scores["temperature=5"] - scores["served"]).max() > 1e-4


def test_comparisons_are_paired_and_reported(
    served_folder: Path, varied: ScoredRows, tmp_path: Path
) -> None:
    found = report_of(varied, Protocol.P1, open_bundle(served_folder), len(varied.rows))
    assert list(found.served_minus) == [*KEYS[1:], *VARIANTS]
    gain = found.served_minus["no-experts"].auc
    served, other = (auc(varied.label, varied.scores[name]) for name in ("served", "no-experts"))
    assert gain.value == pytest.approx(served - other)
    assert gain.low <= gain.value <= gain.high
    reporting.write_json(found, {}, tmp_path / "report.json")
    fields = json.loads((tmp_path / "report.json").read_text())
    assert fields["served_minus"]["single"]["uauc"].keys() == {"value", "low", "high"}
    shares = [part["share"] for name, part in fields["parts"].items() if "route" in name]
    assert sum(shares) == pytest.approx(1.0)
    console = Console(record=True, width=160)
    reporting.show(console, found, {})
    text = console.export_text()
    assert "served − it" in text
    assert "peft-linear" in text


def test_two_bundles_are_compared_on_the_same_rows(
    served_folder: Path, bundle_folder: Path, small_data: Path
) -> None:
    def judged(against: Path) -> Comparison:
        found, _, _ = evaluate(
            served_folder,
            small_data,
            Protocol.P1,
            through_grpc=False,
            progress=Progress(),
            max_rows=30,
            against=against,
        )
        return found.served_minus[OTHER_BUNDLE]

    same, other = judged(served_folder), judged(bundle_folder)
    assert (same.auc.value, same.auc.low, same.auc.high) == (0.0, 0.0, 0.0)
    assert other.auc.low < other.auc.high


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("singel", "did you mean single?"),
        ("zzz", "use no-experts, single, peft-linear, temperature=T, max-experts=N"),
        ("temperature=0", "must be a number above 0"),
        ("temperature", "must be a number above 0"),
        ("max-experts=0", "must be a whole number from 1 on"),
    ],
)
def test_an_unknown_variant_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=text) as refused:
        Variant.of_text(text)
    assert said in str(refused.value)
