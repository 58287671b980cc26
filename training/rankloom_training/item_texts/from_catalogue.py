"""Item texts without a model: the catalogue's own labels, and the terms that mark a description."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from rankloom_features.catalogue import Item
from rankloom_training.item_texts.item_text import (
    MAX_DESCRIPTION_WORDS,
    MAX_KEYWORDS,
    ItemText,
    clean_keywords,
)

NAME = "catalogue"
_WORD = r"(?u)\b[^\W\d_]{3,}\b"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class CatalogueWriter:
    """Keywords are an item's labels and the terms of its description with the largest tf-idf."""

    name = NAME

    def __init__(self, items: Sequence[Item]) -> None:
        self._terms = dict(
            zip(
                (item.item_id for item in items),
                _terms([i.description for i in items]),
                strict=True,
            )
        )

    def describe(self, item: Item) -> ItemText:
        """The texts of one of the items."""
        return ItemText(
            item_id=item.item_id,
            keywords=clean_keywords((*item.attributes, *self._terms[item.item_id])),
            description=_description(item),
            teacher=self.name,
            prompt_digest=hashlib.sha256(repr(item).encode()).hexdigest(),
            written=datetime.now(UTC),
        )


def _terms(descriptions: Sequence[str]) -> list[list[str]]:
    """The terms of each description, the most telling first."""
    words = TfidfVectorizer(stop_words="english", token_pattern=_WORD)
    try:
        weights = words.fit_transform(descriptions).tocsr()
    except ValueError:  # no description has a word
        return [[] for _ in descriptions]
    names = words.get_feature_names_out()
    return [
        [str(names[row.indices[at]]) for at in np.argsort(-row.data, kind="stable")[:MAX_KEYWORDS]]
        for row in weights
    ]


def _description(item: Item) -> str:
    """Whole sentences of the description as far as they fit, or words; else labels and year."""
    if not item.description.strip():
        labels = " and ".join(item.attributes[:3])
        year = f"of {item.year}" if item.year is not None else ""
        return " ".join(part for part in (labels, year) if part)
    kept: list[str] = []
    for sentence in _SENTENCE_END.split(" ".join(item.description.split())):
        if len(" ".join([*kept, sentence]).split()) > MAX_DESCRIPTION_WORDS:
            break
        kept.append(sentence)
    return " ".join(kept or item.description.split()[:MAX_DESCRIPTION_WORDS])
