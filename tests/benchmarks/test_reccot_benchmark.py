"""The study of rationales: its arms, and what its table compares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.reccot.report import figures_of, summary
from benchmarks.reccot.study import (
    FACTORS,
    LABELS,
    NO_MATCH,
    UNWEIGHTED,
    WITH,
    WITHOUT,
    Predictions,
    RationaleStudy,
)

from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews, load_reviews
from rankloom_training.reccot.generate import GenerateOptions, generate
from rankloom_training.reccot.generators import EvidenceGenerator
from rankloom_training.reccot.rationale_file import rationales_of
from rankloom_training.synthetic_reviews import write_reviews


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Reviews:
    folder = tmp_path_factory.mktemp("reviews")
    write_reviews(folder, num_users=6)
    return load_reviews(folder)


def test_every_arm_predicts_each_test_row(reviews: Reviews, tmp_path: Path) -> None:
    file = tmp_path / "rationales.parquet"
    generate(reviews, EvidenceGenerator(), GenerateOptions(), file, lambda *_: None)
    rationales = rationales_of(file, reviews)
    study = RationaleStudy(reviews, {"rationales": rationales, "unweighted": rationales}, None, 1)
    found = study.predictions(1)
    means = {"global mean", "user mean", "item mean"}
    assert set(found) == {WITH, WITHOUT, LABELS, UNWEIGHTED, NO_MATCH, FACTORS} | means
    number = len(reviews.rows(Split.TEST))
    assert all(len(predicted) == number for seeds in found.values() for predicted in seeds)
    np.testing.assert_array_equal(found[WITH][0], found[UNWEIGHTED][0])
    assert (found[WITH][0] != found[WITHOUT][0]).any()


def test_the_table_compares_squared_errors(reviews: Reviews) -> None:
    rating = reviews.rating[reviews.rows(Split.TEST)]
    predicted: Predictions = {WITH: [rating, rating], FACTORS: [rating + 1.0, rating - 2.0]}
    figures = figures_of(reviews, predicted)
    result = BenchmarkResult(
        room="reccot", facts=RunFacts.now(), dtype="float32", settings={}, figures=figures
    )
    lines = summary(result).splitlines()
    assert lines[1].endswith("+0.0000 [+0.0000, +0.0000]")
    assert "2.5000  1.0000 4.0000" in lines[2]
    assert lines[2].endswith("-2.5000 [-2.5000, -2.5000]")
    assert figures[FACTORS]["mse"] == pytest.approx(2.5)
