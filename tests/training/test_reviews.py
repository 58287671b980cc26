"""Reviews: read as they come, Amazon's as they are, and what is refused or said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankloom_training.data import DataError, Split, load_dataset
from rankloom_training.data.reviews import MAX_TEXT_CHARS, load_reviews
from rankloom_training.reccot.rating_column import LoggedReviews
from rankloom_training.synthetic import write_synthetic
from rankloom_training.synthetic_reviews import write_reviews
from training.logs import Row, write_csv
from training.small_log import good_items

NAME = "interactions.csv"


def review_rows(number: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "user_id": "ab"[n % 2],
            "item_id": f"i{n % 5}",
            "rating": 1 + n % 5,
            "text": f"Number {n} was fine.",
            "timestamp": 100 + n,
        }
        for n in range(number)
    ]


def folder_of(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_csv(folder / NAME, rows)
    items: list[Row] = [*good_items()]
    write_csv(folder / "items.csv", items)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_reviews(folder)
    return str(caught.value)


def test_reviews_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    read = load_reviews(folder_of(tmp_path, review_rows()[::-1]))
    assert read.time.tolist() == list(range(100, 112))
    assert read.rating.tolist() == [1 + n % 5 for n in range(12)]
    assert read.texts[3] == "Number 3 was fine."
    assert [read.user_ids[code] for code in read.user[:2]] == ["a", "b"]
    assert [len(read.rows(split)) for split in Split] == [8, 2, 2]
    assert not read.warnings


@pytest.mark.parametrize(
    ("rating", "fault"), [(0, "is 0, which"), (6, "is not a rating"), ("", "is empty")]
)
def test_other_ratings_are_refused(tmp_path: Path, rating: object, fault: str) -> None:
    rows = review_rows()
    rows[4]["rating"] = rating
    assert refusal(folder_of(tmp_path, rows)).startswith(f"{NAME}: column rating: row 5 {fault}")


def test_zero_may_mean_not_rated(tmp_path: Path) -> None:
    rows = review_rows()
    rows[4]["rating"] = 0
    (tmp_path / "columns.json").write_text('{"zero_is_unknown": true}')
    assert len(load_reviews(folder_of(tmp_path, rows))) == 11


def test_a_review_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    rows = review_rows()
    rows[2]["text"] = "word " * 200_000
    read = load_reviews(folder_of(tmp_path, rows))
    assert len(read.texts[2]) == MAX_TEXT_CHARS
    assert read.warnings == (
        f"{NAME}: column text: 1 reviews are cut to 20,000 characters (first: row 3)",
    )


@pytest.mark.parametrize("text", ["", "  \n ", "👍👍 ❤️", "!!! ..."])
def test_reviews_without_a_word_leave_their_rating(tmp_path: Path, text: str) -> None:
    rows = review_rows()
    rows[1]["text"] = text
    read = load_reviews(folder_of(tmp_path, rows))
    assert read.texts[1] == ""
    assert read.has_text.sum() == 11
    assert "1 reviews have no word" in read.warnings[0]


def test_a_log_without_any_text_is_refused(tmp_path: Path) -> None:
    rows = [row | {"text": "…"} for row in review_rows()]
    assert "no training row has a review" in refusal(folder_of(tmp_path, rows))
    rows = [{name: row[name] for name in row if name != "text"} for row in rows]
    assert "no column for text" in refusal(folder_of(tmp_path, rows))


def test_half_utf8_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, review_rows())
    path = tmp_path / NAME
    path.write_bytes(
        path.read_bytes().replace(b"fine", "schön".encode(), 1)
        + "b,i0,1,schön,9\n".encode("latin-1")
    )
    assert refusal(tmp_path).startswith(f"{NAME}: line 2 is UTF-8, but line 14 is not")


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, review_rows())
    (tmp_path / NAME).unlink()
    lines = [json.dumps(row) for row in review_rows()]
    lines[3] = lines[3].replace("fine", "\\ud83d")
    (tmp_path / "interactions.jsonl").write_text("\n".join(lines))
    assert "row 4 is not JSON, has a column twice or half a character" in refusal(tmp_path)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_amazon_reads_as_it_is(tmp_path: Path, ending: str) -> None:
    """Under its own file names, with products whose fields are ragged."""
    reviews = [
        {
            "rating": float(row["rating"]),
            "title": "Good" if n % 2 else "",
            "text": row["text"],
            "images": [],
            "asin": "variant",
            "parent_asin": row["item_id"],
            "user_id": row["user_id"],
            "timestamp": 1_588_687_728_923 + 86_400_000 * n,
            "helpful_vote": n,
            "verified_purchase": True,
        }
        for n, row in enumerate(review_rows(40))
    ]
    products = [
        {
            "title": f"P{n}",
            "price": [9.99, "from 1", None][n % 3],
            "parent_asin": f"i{n}",
            "description": ["A", "b"],
        }
        for n in range(5)
    ]
    for name, rows in (("Software", reviews), ("meta_Software", products)):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (tmp_path / f"{name}.{ending}").write_bytes(gzip.compress(data) if "gz" in ending else data)
    read = load_reviews(tmp_path)
    assert read.texts[:2] == ("Number 0 was fine.", "Good\nNumber 1 was fine.")
    assert 2020 < 1970 + read.time[0] / 31_556_952 < 2021
    assert read.catalogue.items[1].title == "P1"
    log = load_dataset(tmp_path)
    assert len(log.log) == 40
    assert sorted(LoggedReviews.of(log, read).of_row) == list(range(40)), "each row has its review"


def test_the_embedded_reviews(tmp_path: Path) -> None:
    """They are the films and times of the embedded log; most ratings are 5."""
    write_synthetic(tmp_path / "plain")
    write_reviews(tmp_path / "reviews")
    plain, read = load_dataset(tmp_path / "plain"), load_reviews(tmp_path / "reviews")
    for name in ("items.csv", "truth.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (
            tmp_path / "reviews" / name
        ).read_bytes()
    np.testing.assert_array_equal(np.sort(plain.log.time), read.time)
    shares = np.bincount(read.rating.astype(int))[1:] / len(read)
    np.testing.assert_allclose(shares, [0.07, 0.06, 0.11, 0.21, 0.55], atol=0.001)
    assert read.has_text.all()


def test_the_embedded_reviews_say_why(tmp_path: Path) -> None:
    """Praise goes with higher ratings than blame."""
    write_reviews(tmp_path)
    read = load_reviews(tmp_path)
    fine = np.array(["Beautifully made" in text for text in read.texts])
    poor = np.array(["Badly made" in text for text in read.texts])
    assert read.rating[fine].mean() > read.rating[poor].mean() + 0.5
