"""Short texts of the items in prompts: an ablation is one option."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rankloom_training.data import DataError, load_dataset
from rankloom_training.item_texts.in_prompts import with_item_texts
from rankloom_training.item_texts.item_text import ItemText
from rankloom_training.item_texts.item_text_file import FILE_NAME, write_item_texts
from rankloom_training.options import ItemTextKind
from training.small_log import folder_of, good_items, good_rows

TEXT = ItemText("i1", ("slow", "blue"), "A slow blue film.", "a", "b", datetime.now(UTC))
ITEMS = [item | {"description": "Own."} for item in good_items()]


def descriptions(folder: Path, kind: ItemTextKind) -> list[str]:
    data = with_item_texts(load_dataset(folder), folder, kind)
    return [item.description for item in data.catalogue.items]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path, good_rows(), ITEMS)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ItemTextKind.NONE, "Own."),
        (ItemTextKind.KEYWORDS, "slow, blue"),
        (ItemTextKind.DESCRIPTION, "A slow blue film."),
    ],
)
def test_an_item_has_the_text_that_is_asked_for(
    folder: Path, kind: ItemTextKind, text: str
) -> None:
    empty = dataclasses.replace(TEXT, item_id="i2", keywords=(), description="")
    write_item_texts(folder / FILE_NAME, [TEXT, empty])
    assert descriptions(folder, kind) == ["Own.", text, "Own.", "Own.", "Own."]


def test_without_texts_items_keep_their_own(folder: Path) -> None:
    assert descriptions(folder, ItemTextKind.DESCRIPTION) == ["Own."] * 5


def test_another_file_in_its_place_is_refused(folder: Path) -> None:
    (folder / FILE_NAME).write_text("nothing of ours")
    with pytest.raises(DataError, match="is not a file of item texts"):
        descriptions(folder, ItemTextKind.DESCRIPTION)
