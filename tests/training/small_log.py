"""A small valid log in files, for tests that break it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankloom_training.data import DataError, Interactions, load_dataset
from training.logs import write_csv

LOG, ITEMS = "interactions.csv", "items.csv"
SPLITS = ("train",) * 6 + ("valid",) * 3 + ("test",) * 3
Rows = list[dict[str, Any]]


def good_rows() -> Rows:
    return [
        {
            "user_id": "ab"[index % 2],
            "item_id": f"i{index % 5}",
            "label": int(index % 3 == 0),
            "timestamp": 100 + index,
            "split": split,
        }
        for index, split in enumerate(SPLITS)
    ]


def good_items() -> Rows:
    return [{"item_id": f"i{index}", "title": f"T{index}"} for index in range(5)]


def folder_of(folder: Path, rows: Rows | None = None, items: Rows | None = None) -> Path:
    write_csv(folder / LOG, good_rows() if rows is None else rows)
    write_csv(folder / ITEMS, good_items() if items is None else items)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(folder)
    return str(caught.value)


def rows_of(log: Interactions) -> list[tuple[str, int, bool, float, int]]:
    names = (log.user_ids[code] for code in log.user)
    columns = (names, log.item.tolist(), log.liked.tolist(), log.time.tolist(), log.split.tolist())
    return list(zip(*columns, strict=True))
