from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rankloom_training.data import Dataset, load_dataset
from training.logs import MOVIELENS, MOVIELENS_MARKS, random_log

LOGS: dict[str, Callable[[Path], Dataset]] = {
    "small": load_dataset,
    "random": lambda _: random_log(11, num_users=24, num_items=40, mean_rows=18),
    "movielens": lambda _: load_dataset(MOVIELENS),
}


@pytest.fixture(
    scope="session",
    params=["small", "random", pytest.param("movielens", marks=MOVIELENS_MARKS)],
)
def dataset(request: pytest.FixtureRequest, small_data: Path) -> Dataset:
    """Each of the logs that a leak could show in."""
    return LOGS[request.param](small_data)
