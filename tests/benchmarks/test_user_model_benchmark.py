"""The user model's study: what it leaves out, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.user_model.study import (
    ALL,
    ALONE,
    NONE,
    OF_P0,
    VARIANTS,
    study,
    summary,
    update_us,
)

from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.user_model import USER_MODEL_COLUMNS
from rankloom_training.data import Dataset, make_log
from rankloom_training.visibility import Protocol


@pytest.fixture(scope="module")
def data() -> Dataset:
    """30 users, 20 items, random likes."""
    random, num = np.random.default_rng(4), 600
    users = [f"u{code}" for code in random.integers(0, 30, num)]
    time = np.arange(num, dtype=np.float64)
    log = make_log(users, random.integers(0, 20, num), random.random(num) < 0.5, time, time)
    return Dataset(Catalogue(Item(f"i{index}", f"Title {index}") for index in range(20)), log)


def test_every_kind_of_score_has_its_metrics_with_intervals(data: Dataset) -> None:
    found = study(data, Protocol.P0, 1)
    assert set(found) == {ALONE, *VARIANTS, *OF_P0}
    for of in found.values():
        for metrics in of.values():
            for metric in ("auc", "uauc"):
                own, gain = metrics[metric], metrics[f"{metric}_gain"]
                assert 0.3 < own["value"] < 0.7
                assert own["low"] < own["value"] < own["high"]
                assert gain["low"] <= gain["value"] <= gain["high"]
                assert of is not found[ALL] or gain["value"] == 0
    gained = found[ALL]["test"]["auc"]["value"] - found[NONE]["test"]["auc"]["value"]
    assert found[NONE]["test"]["auc_gain"]["value"] == pytest.approx(gained)
    figures: dict[str, object] = {"update_us": update_us(data), **found}
    result = BenchmarkResult(
        room="user_model", facts=RunFacts.now(), dtype="float64", settings={}, figures=figures
    )
    assert f"{ALL}  " in summary(result)
    assert "µs" in summary(result).splitlines()[-1]


def test_variants_differ_in_what_their_names_say(data: Dataset) -> None:
    found = study(data, Protocol.P1, 1)
    assert set(found) == {ALONE, *VARIANTS}
    values = [of["test"]["auc"]["value"] for of in found.values()]
    assert len(set(values)) == len(values)


def test_some_columns_are_left_out_and_all_in_the_end() -> None:
    assert set(VARIANTS[NONE].left_out) == set(USER_MODEL_COLUMNS)
    for variant in VARIANTS.values():
        assert set(variant.left_out) <= set(USER_MODEL_COLUMNS)


def test_an_update_takes_microseconds(data: Dataset) -> None:
    """Far above the bound of 50, so that a busy machine does not fail it."""
    assert np.isfinite(update_us(data))
    assert update_us(data) < 5_000
