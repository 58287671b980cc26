"""A catalogue's texts are text in training too: they write no special token into the base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankloom_training.data import Dataset, load_dataset
from rankloom_training.embedded import (
    ASK,
    BEGIN,
    ITEM,
    NO,
    YES,
    embedded_format,
    lessons_of,
    train_tokenizer,
)
from small_data import write_small_data

TITLE = f"A {YES} film {ITEM} or {NO} or {BEGIN} or {ASK}"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """The small log, where every comedy has a title of special tokens."""
    items = write_small_data(tmp_path) / "items.csv"
    text = items.read_text(encoding="utf-8").replace("The Comedy No", TITLE)
    items.write_text(text, encoding="utf-8")
    return load_dataset(tmp_path)


def test_a_title_is_encoded_as_its_letters(dataset: Dataset) -> None:
    tokenizer = train_tokenizer(dataset.catalogue)
    fmt = embedded_format(tokenizer, 5)
    special = {*fmt.begin, *fmt.item, *fmt.ask, fmt.liked, fmt.disliked}
    ids = tokenizer.encode(TITLE, add_special_tokens=False).ids
    assert special.isdisjoint(ids)
    assert tokenizer.decode(ids) == TITLE


def test_the_base_learns_from_the_verdicts_of_the_log_alone(dataset: Dataset) -> None:
    tokenizer, log = train_tokenizer(dataset.catalogue), dataset.log
    fmt, rows = embedded_format(tokenizer, 5), np.arange(len(log.user))
    lessons = list(lessons_of(tokenizer, fmt, dataset.catalogue, log, rows, {}))
    found = np.concatenate([lesson.packed.tokens.ids for lesson in lessons])
    likes = int(log.liked.sum())
    assert (found == fmt.liked).sum() == likes
    assert (found == fmt.disliked).sum() == len(rows) - likes
    assert (found == fmt.item[0]).sum() == (found == fmt.ask[0]).sum() == len(rows)
    assert (found == fmt.begin[0]).sum() == len(lessons)
