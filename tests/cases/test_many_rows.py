"""A long log is read in seconds, as columns: no Python object per row."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from rankloom_training.data import load_dataset

ROWS, USERS, ITEMS = 200_000, 5_000, 800
MAX_BYTES_PER_ROW = 150.0  # of Python and NumPy at the peak: a Python text alone takes 55
MAX_SECONDS = 10.0  # 0.4 on an idle core


def write(folder: Path) -> None:
    random = np.random.default_rng(0)
    user = pa.array(random.integers(0, USERS, ROWS)).cast(pa.string())
    item = pa.array(random.integers(0, ITEMS, ROWS)).cast(pa.string())
    stars = random.integers(1, 6, ROWS)
    when = 1_500_000_000 + np.sort(random.integers(0, 10**8, ROWS))
    log = pa.table({"user_id": user, "item_id": item, "rating": stars, "timestamp": when})
    csv.write_csv(log, folder / "ratings.csv")
    ids = pa.array(range(ITEMS)).cast(pa.string())
    csv.write_csv(pa.table({"item_id": ids, "title": ids}), folder / "items.csv")


def test_a_long_log_is_read_as_columns(tmp_path: Path) -> None:
    write(tmp_path)
    started = time.monotonic()
    assert len(load_dataset(tmp_path).log) > 0.99 * ROWS
    assert time.monotonic() - started < MAX_SECONDS
    tracemalloc.start()
    load_dataset(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / ROWS < MAX_BYTES_PER_ROW
