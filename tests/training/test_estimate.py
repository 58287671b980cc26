"""Estimates of time: rows times rates, which trainings of this machine replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankloom_training import estimate as estimates
from rankloom_training import rates
from rankloom_training.estimate import STAGES, duration, estimate, workloads
from rankloom_training.options import Recipe, TrainOptions
from rankloom_training.rates import MIN_S, REFERENCE_GFLOPS, REFERENCE_RATES, remember
from rankloom_training.stages.sequence import stages_of
from rankloom_training.visibility import VALID_SHARE
from training.logs import random_log

OPTIONS = TrainOptions()
SLOWER = 2.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine of half the reference's speed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(rates, "matmul_gflops", lambda: REFERENCE_GFLOPS / SLOWER)
    return tmp_path


def test_every_stage_has_a_workload() -> None:
    assert [stage.name for stage in stages_of(OPTIONS)] == [*STAGES]
    assert list(workloads(random_log(0), OPTIONS)) == [*STAGES]


def test_reviews_take_time_where_they_are_read() -> None:
    data, options = random_log(0), TrainOptions(review_encoder="somewhere")
    assert list(workloads(data, options)) == [stage.name for stage in stages_of(options)]
    assert estimate(data, options).seconds["reviews"]


def test_rows_are_counted_once_for_each_epoch_and_capped() -> None:
    data = random_log(0)
    train = int((data.log.split == 0).sum())
    found = workloads(data, TrainOptions(global_recipe=Recipe(5, 1e-3), lm_rows=10))
    assert found["collaborative"].rows == train > 10
    assert found["global"].rows == 50
    assert found["base"].rows == 10 * OPTIONS.base_epochs


def test_trees_see_some_rows_of_a_large_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "TABLE_ROWS", 20)
    assert workloads(random_log(0), OPTIONS)["trees"].rows == 20 + 20 // VALID_SHARE


def test_without_a_training_here_rates_are_scaled_by_a_trial() -> None:
    data = random_log(0)
    found, rows = estimate(data, OPTIONS), workloads(data, OPTIONS)["trees"].rows
    assert found.seconds["trees"] == pytest.approx(rows * REFERENCE_RATES["trees"] * SLOWER)
    assert found.text(STAGES).endswith("(from a short trial)")


def test_a_training_here_replaces_the_rate() -> None:
    data = random_log(0)
    remember("trees", 100, 50_000.0)
    found, rows = estimate(data, OPTIONS), workloads(data, OPTIONS)["trees"].rows
    assert found.seconds["trees"] == pytest.approx(rows * 500.0)
    assert found.text(STAGES).endswith("(from earlier trainings here)")
    assert found.text(["global"]).endswith("(from a short trial)")


def test_a_training_of_few_rows_says_nothing_about_many() -> None:
    data = random_log(0, num_users=400)
    remember("trees", 2, 1000.0)
    assert estimate(data, OPTIONS).measured == frozenset()
    found, rows = estimate(data, OPTIONS), workloads(data, OPTIONS)["trees"].rows
    assert found.seconds["trees"] == pytest.approx(rows * REFERENCE_RATES["trees"] * SLOWER)


def test_short_stages_are_not_remembered(cache: Path) -> None:
    remember("trees", 100, MIN_S / 2)
    remember("trees", 0, MIN_S * 2)
    assert list(cache.rglob("*.json")) == []


def test_a_base_that_never_ran_here_is_said_to_be_unknown() -> None:
    data, options = random_log(0), TrainOptions(base="some/base")
    found = estimate(data, options)
    assert found.seconds["global"] is None
    assert "nothing is known yet" in found.text(STAGES)
    remember("global some/base", 10, 100.0)
    assert estimate(data, options).seconds["global"] is not None


@pytest.mark.parametrize("content", ["", "[]", '{"trees": "fast"}', '{"trees": [-1.0, 3]}', "\0"])
def test_a_damaged_cache_is_ignored(cache: Path, content: str) -> None:
    remember("trees", 100, 500.0)
    (path,) = cache.rglob("*.json")
    path.write_text(content)
    assert estimate(random_log(0), OPTIONS).text(["trees"]).endswith("(from a short trial)")
    remember("router", 100, 500.0)
    assert json.loads(path.read_text()) == {"router": [500.0, 100]}


def test_a_cache_that_cannot_be_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember("trees", 100, 500.0)
    assert estimate(random_log(0), OPTIONS).measured == frozenset()


def test_the_trial_measures_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0.01 < rates.matmul_gflops() < 1e6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "about 1 s"), (89, "about 89 s"), (170, "about 3 min"), (10_000, "about 3 h")],
)
def test_durations_are_rounded(seconds: float, text: str) -> None:
    assert duration(seconds) == text
