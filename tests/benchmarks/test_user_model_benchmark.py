"""The user model's study: what it leaves out, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.user_model.study import ALL, ALONE, LEFT_OUT, NONE, study, summary, update_us

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


def test_every_kind_of_score_has_its_metrics(data: Dataset) -> None:
    found = study(data, Protocol.P0, 1)
    assert set(found) == {ALONE, *LEFT_OUT}
    assert all(len(values) == 4 for values in found.values())
    assert all(0.3 < value < 0.7 for values in found.values() for value in values)
    figures: dict[str, object] = {"update_us": update_us(data), **found}
    result = BenchmarkResult(
        room="user_model", facts=RunFacts.now(), dtype="float64", settings={}, figures=figures
    )
    assert f"{ALL}  " in summary(result)
    assert "µs" in summary(result).splitlines()[-1]


def test_some_columns_are_left_out_and_all_in_the_end() -> None:
    assert set(LEFT_OUT[NONE]) == set(USER_MODEL_COLUMNS)
    for left_out in LEFT_OUT.values():
        assert set(left_out) <= set(USER_MODEL_COLUMNS)


def test_an_update_takes_microseconds(data: Dataset) -> None:
    """Far above the bound of 50, so that a busy machine does not fail it."""
    assert np.isfinite(update_us(data))
    assert update_us(data) < 5_000
