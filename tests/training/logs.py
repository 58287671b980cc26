"""Logs for tests: random ones, and MovieLens-1M if it is there."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.data import Dataset, Interactions, Split, make_log

MOVIELENS = Path(__file__).resolve().parents[3] / "shared" / "data" / "ml-1m-collm"
MOVIELENS_MARKS = (
    pytest.mark.shared,
    pytest.mark.skipif(not MOVIELENS.is_dir(), reason="the MovieLens-1M data set is not there"),
)
GENRES = ("Comedy", "Drama", "War")
Row = Mapping[str, object]


def on_movielens(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that reads MovieLens-1M."""
    for mark in MOVIELENS_MARKS:
        test = mark(test)
    return test


def write_csv(path: Path, rows: Sequence[Row], header: Sequence[str] | None = None) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header or list(rows[0]))
        writer.writerows(list(row.values()) for row in rows)


def random_log(seed: int, num_users: int = 6, num_items: int = 15, mean_rows: int = 14) -> Dataset:
    """A random log, split by time. Users differ in length; rows are in random order."""
    random = np.random.default_rng(seed)
    num = num_users * mean_rows
    users = [f"u{code}" for code in random.integers(0, num_users, num)]
    time = random.integers(0, 3 * num, num).astype(np.float64)
    items = [
        Item(f"i{index}", f"Title {index}", 1980 + index, (GENRES[index % 3],))
        for index in range(num_items)
    ]
    log = make_log(
        users,
        random.integers(0, num_items, num),
        random.random(num) < 0.5,
        time,
        time + random.random(num) / 2,
    )
    return Dataset(Catalogue(items), log)


def relabelled(log: Interactions, flip: NDArray[np.bool_]) -> Interactions:
    """The log with some labels flipped."""
    return dataclasses.replace(log, liked=log.liked ^ flip)


def without(log: Interactions, gone: NDArray[np.bool_]) -> Interactions:
    """The log without some rows. All users stay, even those without a row."""
    kept = ~gone
    start = np.searchsorted(log.user[kept], np.arange(log.num_users)).astype(np.int64)
    fields = {name: getattr(log, name)[kept] for name in ("user", "item", "liked", "time", "split")}
    return dataclasses.replace(log, start=start, **fields)


def hidden_under_p0(log: Interactions) -> NDArray[np.bool_]:
    """Rows that no other row may see: dislikes outside the training rows."""
    return np.asarray(~log.liked & (log.split != Split.TRAIN))
