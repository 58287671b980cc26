"""Puts the items' short texts where prompts have descriptions"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.data import Dataset
from rankloom_training.item_texts.item_text import ItemText
from rankloom_training.item_texts.item_text_file import FILE_NAME, read_item_texts
from rankloom_training.options import ItemTextKind


def with_item_texts(data: Dataset, folder: Path, kind: ItemTextKind) -> Dataset:
    """The data with these texts as the items' descriptions; an item without one keeps its own.

    ``folder``: where `rankloom items describe` wrote them. Raises DataError.
    """
    if kind is ItemTextKind.NONE:
        return data
    texts = read_item_texts(folder / FILE_NAME)
    items = (_described(item, texts.get(item.item_id), kind) for item in data.catalogue.items)
    return dataclasses.replace(data, catalogue=Catalogue(items))


def _described(item: Item, text: ItemText | None, kind: ItemTextKind) -> Item:
    if text is None:
        return item
    found = ", ".join(text.keywords) if kind is ItemTextKind.KEYWORDS else text.description
    return dataclasses.replace(item, description=found or item.description)
