"""What a like is is never guessed: five stars and labels are known, other scales are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankloom_adapters.bundle import open_bundle, seal
from rankloom_training.data import Dataset, load_dataset
from rankloom_training.evaluate import like_above_of
from training.small_log import LOG, folder_of, good_rows, refusal

BOOKS = [0, 8, 10, 0, 5, 7, 0, 9, 3, 0, 10, 6]  # 0: not rated


def with_values(folder: Path, name: str, values: list[Any], **settings: object) -> Path:
    """The good log with one column of labels or ratings, and a columns.json."""
    rows = [
        {key: value for key, value in row.items() if key != "label"} | {name: value}
        for row, value in zip(good_rows(), values, strict=True)
    ]
    if settings:
        (folder / "columns.json").write_text(json.dumps(settings))
    return folder_of(folder, rows)


def likes(dataset: Dataset, values: list[Any]) -> list[bool]:
    """Likes in the order of the file; the good log's users take turns."""
    assert len(dataset.log) == len(values)
    own = dataset.log.liked.reshape(2, -1)
    return [bool(liked) for pair in own.T for liked in pair]


def rule_of(dataset: Dataset) -> str:
    assert dataset.source is not None
    return str(dataset.source.likes)


def test_a_longer_scale_is_refused_with_its_histogram(tmp_path: Path) -> None:
    message = refusal(with_values(tmp_path, "rating", BOOKS))
    assert message.startswith(f"{LOG}: column rating is not a scale of five stars (0: 33.3 %, 3: ")
    assert "--like-above X" in message
    assert "like_above in columns.json" in message
    assert "zero_is_unknown if 0 means not rated" in message


def test_a_long_scale_is_shown_in_ranges(tmp_path: Path) -> None:
    message = refusal(with_values(tmp_path, "rating", [8 * n for n in range(12)]))
    assert "(0 to 8.8: 16.7 %, " in message


@pytest.mark.parametrize("stated", ["argument", "file"])
def test_a_stated_threshold_is_used_and_said(tmp_path: Path, stated: str) -> None:
    settings: dict[str, object] = {"like_above": 6} if stated == "file" else {}
    folder = with_values(tmp_path, "rating", BOOKS, **settings)
    found = load_dataset(folder, None if settings else 6.0)
    assert likes(found, BOOKS) == [value > 6 for value in BOOKS]
    assert (found.like_above, rule_of(found)) == (6.0, "rating above 6 on a scale from 0 to 10")
    assert "4 rows are 0 and count as dislikes" in found.warnings[0]


def test_the_argument_goes_before_the_file(tmp_path: Path) -> None:
    folder = with_values(tmp_path, "rating", BOOKS, like_above=1)
    assert load_dataset(folder, 6.0).like_above == 6.0


@pytest.mark.parametrize(
    ("metadata", "above"), [({"like_above": 6.5}, 6.5), ({"like_above": None}, None), ({}, None)]
)
def test_an_evaluation_uses_the_bundles_threshold(
    tmp_path: Path, metadata: dict[str, Any], above: float | None
) -> None:
    (tmp_path / "part").write_text("")
    seal(tmp_path, metadata)
    assert like_above_of(open_bundle(tmp_path)) == above


def test_zeros_can_be_unknown(tmp_path: Path) -> None:
    folder = with_values(tmp_path, "rating", BOOKS, like_above=6, zero_is_unknown=True)
    rows = [row for row, value in zip(good_rows(), BOOKS, strict=True) if value]
    found = load_dataset(folder)
    assert len(found.log) == len(rows) == 8
    assert rule_of(found).endswith("on a scale from 3 to 10; 4 rows of 0 are unknown")
    assert found.warnings == ()


@pytest.mark.parametrize("name", ["label", "rating"])
@pytest.mark.parametrize("values", [[1, -1] * 6, [True, False] * 6, ["true", "FALSE"] * 6])
def test_votes_and_booleans_are_labels(tmp_path: Path, name: str, values: list[Any]) -> None:
    values = [values[n // 2] for n in range(12)]  # both users have both
    found = load_dataset(with_values(tmp_path, name, values))
    assert likes(found, values) == [str(value).lower() in ("1", "true") for value in values]
    assert found.like_above is None


def test_votes_may_have_unknown_zeros(tmp_path: Path) -> None:
    values = [1, 1, -1, -1, 0, 0, 1, 1, -1, 1, -1, -1]
    folder = with_values(tmp_path, "label", values)
    assert "zero_is_unknown" in refusal(folder)
    (folder / "columns.json").write_text('{"zero_is_unknown": true}')
    assert len(load_dataset(folder).log) == 10


@pytest.mark.parametrize("values", [[-5, 3] * 6, [4, 5] * 6, [1, 2, 3] * 4, [0.2, 0.8] * 6])
def test_a_scale_without_a_middle_is_refused(tmp_path: Path, values: list[float]) -> None:
    assert "is not a scale of five stars" in refusal(with_values(tmp_path, "rating", values))


def test_of_labels_and_ratings_one_is_used_and_the_other_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [row | {"stars": 3 + row["label"]} for row in good_rows()])
    found = load_dataset(folder)
    assert found.warnings == (f"{LOG}: column stars is not used, since label is there",)
    (folder / "columns.json").write_text('{"label": null}')
    again = load_dataset(folder)
    assert again.like_above == 3.0
    assert likes(again, good_rows()) == likes(found, good_rows())


def test_a_threshold_beside_labels_is_a_warning(tmp_path: Path) -> None:
    assert "labels already" in load_dataset(folder_of(tmp_path), 3.0).warnings[0]


@pytest.mark.parametrize(
    "settings",
    [{"like_above": "6"}, {"like_above": True}, {"zero_is_unknown": 1}, {"user": 7},
     {"item_columns": "price"}, {"item_columns": {"price": "money"}}],
)  # fmt: skip
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    (folder_of(tmp_path) / "columns.json").write_text(json.dumps(settings))
    message = refusal(tmp_path)
    assert message.startswith(f"columns.json: {next(iter(settings))} is not valid; ")
