"""The study of rationales: its arms, and what its table compares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.reccot.report import figures_of, summary
from benchmarks.reccot.reward_study import (
    EDGE,
    AnswerRewards,
    RewardStudy,
    SeedRewards,
    curve_rise,
)
from benchmarks.reccot.reward_study import figures_of as reward_figures
from benchmarks.reccot.reward_study import summary as reward_summary
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
from rankloom_training.reccot.decoder import WarmStart
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


def test_a_rise_has_an_interval_that_noise_alone_includes() -> None:
    random = np.random.default_rng(1)
    noise = [random.normal(size=3 * EDGE) for _ in range(3)]
    flat = curve_rise(noise)
    assert flat.low < 0.0 < flat.high
    risen = curve_rise([one + np.linspace(0.0, 6.0, 3 * EDGE) for one in noise])
    assert risen.low > 2.0
    assert risen.value == pytest.approx(flat.value + 4.0 * 30 / 29, abs=0.01)


def test_the_table_of_rewards_has_both_rises(reviews: Reviews) -> None:
    study = RewardStudy(reviews, steps=20)
    curve = [{"reward": value} for value in (*[1.0] * EDGE, *[3.0] * EDGE)]
    number = len(study.asked)
    nothing = np.zeros(number)
    before, after = (
        AnswerRewards(nothing, nothing),
        [AnswerRewards(nothing - 1.0, np.full(number, seed)) for seed in (1.0, 2.0)],
    )
    found = [SeedRewards(curve, before, each, 9.0) for each in after]
    figures = reward_figures(study, found)
    assert figures["curve_rise"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert figures["drawn_rise"] == {"value": 1.5, "low": 1.5, "high": 1.5}
    assert figures["likeliest_rise"] == {"value": -1.0, "low": -1.0, "high": -1.0}
    result = BenchmarkResult(
        room="reccot-grpo", facts=RunFacts.now(), dtype="float32", settings={}, figures=figures
    )
    assert reward_summary(result).splitlines()[2].split() == [
        *("1", "1.000", "3.000", "0.000", "2.000", "0.000", "-1.000", "9"),
    ]


@pytest.mark.filterwarnings("ignore")  # of TRL and what it imports
def test_both_trainings_of_a_seed_answer_the_same_reviews(reviews: Reviews) -> None:
    study = RewardStudy(reviews, steps=1, start=WarmStart(rows=16, epochs=1))
    found = study.of_seed(0)
    assert len(found.curve) == 1
    for rewards in (found.before, found.after):
        assert len(rewards.likeliest) == len(rewards.drawn) == len(study.asked) > 0
        assert np.isfinite([*rewards.likeliest, *rewards.drawn]).all()
