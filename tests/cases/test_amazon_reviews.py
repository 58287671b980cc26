"""Reviews and products as Amazon's public data sets have them: JSON lines with ragged fields."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankloom_training.data import load_dataset
from training.small_log import good_items, good_rows, refusal


def product(number: int, item_id: str) -> dict[str, Any]:
    """Its price is a number, a text or missing; its details differ in their types."""
    return {
        "main_category": "Books" if number % 2 else "Music",
        "title": f"Product {number}",
        "average_rating": 3.5 + number / 10,
        "features": ["Paperback", f"Feature {number}"],
        "description": ["First part.", f"Part {number}."],
        "price": [9.99, "from 14.99", None, 3, "—"][number],
        "images": [{"large": "https://example.org", "hi_res": None}],
        "categories": ["Books", "Fiction"] if number % 2 else [],
        "details": {"Weight": 3 if number % 2 else "3 kg"},
        "parent_asin": item_id,
    }


def folder_of_reviews(folder: Path) -> Path:
    reviews = [
        {
            "rating": 5.0 if row["label"] else 2.0,
            "title": "Good",
            "text": "I read it.",
            "asin": "other",
            "parent_asin": row["item_id"],
            "user_id": row["user_id"],
            "timestamp": 1_588_687_728_923 + 86_400_000 * n,
            "split": row["split"],
            "helpful_vote": 0 if n % 2 else "none",
        }
        for n, row in enumerate(good_rows())
    ]
    products = [product(n, row["item_id"]) for n, row in enumerate(good_items())]
    write(folder / "ratings.jsonl.gz", reviews)
    write(folder / "items.jsonl.gz", products)
    (folder / "columns.json").write_text('{"item": "parent_asin"}')
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_reviews_and_products_are_read(tmp_path: Path) -> None:
    found = load_dataset(folder_of_reviews(tmp_path))
    assert found.log.user_ids == ("a", "b")
    assert found.log.liked.sum() == 4
    assert 2020 < 1970 + found.log.time.min() / 31_556_952 < 2021
    second = found.catalogue.items[1]
    assert (second.title, second.description) == ("Product 1", "First part. Part 1.")
    assert second.attributes == ("Books", "Fiction")
    columns = dict(zip(found.item_columns.names, found.item_columns.values.T, strict=True))
    np.testing.assert_allclose(columns["average_rating"], [3.5, 3.6, 3.7, 3.8, 3.9])
    np.testing.assert_array_equal(columns["main_category=Music"], [1, 0, 1, 0, 1])
    assert found.source is not None
    kinds = dict(found.source.items.further)
    assert kinds["price"] == "left out: row 2 is a text, and an earlier row is a number"
    assert kinds["details"] == "left out: an object"


def test_a_column_that_is_needed_must_be_of_one_kind(tmp_path: Path) -> None:
    folder_of_reviews(tmp_path)
    (tmp_path / "columns.json").write_text('{"item": "parent_asin", "rating": "helpful_vote"}')
    message = refusal(tmp_path)
    assert message.startswith("ratings.jsonl.gz: column helpful_vote: row 2 is a number, and an ")
    assert message.endswith("write it one way")


@pytest.mark.parametrize("kind", ["number", "category"])
def test_a_declared_column_must_be_of_one_kind(tmp_path: Path, kind: str) -> None:
    folder_of_reviews(tmp_path)
    settings = {"item": "parent_asin", "item_columns": {"price": kind}}
    (tmp_path / "columns.json").write_text(json.dumps(settings))
    assert refusal(tmp_path).startswith("items.jsonl.gz: column price: row 2 is a text, and an ")
