"""A log of any number of rows, written column by column.

Each user has one of three tastes, which love two genres and avoid two; items differ in quality and
popularity. It has the sizes of a real log and something to learn, and says nothing about accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

ROWS_PER_USER: Final = 50
GENRES: Final = ("Comedy", "Drama", "Horror", "Romance", "Western", "Noir")
# Log-odds that a taste adds for each genre.
TASTES: Final = np.array([[2, 2, -2, -2, 0, 0], [0, 0, 2, 2, -2, -2], [-2, -2, 0, 0, 2, 2]])
DAYS_S: Final = 86_400
FIRST_S: Final = 1_500_000_000


def write_log(folder: Path, num_rows: int, num_items: int, seed: int = 0) -> Path:
    """Writes interactions.parquet and items.parquet into ``folder``."""
    random = np.random.default_rng(seed)
    num_users = max(num_rows // ROWS_PER_USER, 2)
    taste, genre = random.integers(0, len(TASTES), num_users), np.arange(num_items) % len(GENRES)
    quality = random.normal(size=num_items)
    user = random.integers(0, num_users, num_rows)
    # Popularity falls with the square root of the rank.
    item = (num_items * random.random(num_rows) ** 2).astype(np.int64)
    margin = TASTES[taste[user], genre[item]] + quality[item] + random.logistic(size=num_rows)
    log = {
        "user_id": pa.array(user).cast(pa.string()),
        "item_id": pa.array(item).cast(pa.string()),
        "label": pa.array((margin > 0).astype(np.int8)),
        "timestamp": pa.array(FIRST_S + random.integers(0, 900 * DAYS_S, num_rows)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(log), folder / "interactions.parquet")
    genres = [GENRES[index] for index in genre]
    described = {
        "item_id": [str(index) for index in range(num_items)],
        "title": [f"The {genre} No {index}" for index, genre in enumerate(genres)],
        "genres": genres,
        "year": (1960 + np.arange(num_items) % 60).tolist(),
    }
    parquet.write_table(pa.table(described), folder / "items.parquet")
    return folder
