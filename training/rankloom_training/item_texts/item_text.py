"""An item's short texts, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

MAX_KEYWORDS = 10  # ThinkRec
MAX_DESCRIPTION_WORDS = 25  # ReasoningRec


@dataclass(frozen=True, slots=True)
class ItemText:
    """``keywords``: at most MAX_KEYWORDS. ``description``: at most MAX_DESCRIPTION_WORDS words.

    ``prompt_digest``: of what it was written from.
    """

    item_id: str
    keywords: tuple[str, ...]
    description: str
    teacher: str
    prompt_digest: str
    written: datetime


def clean_keywords(keywords: Iterable[str]) -> tuple[str, ...]:
    """Without quotes, numerals such as 19th, short and repeated ones; the first MAX_KEYWORDS."""
    kept: dict[str, str] = {}
    for keyword in keywords:
        word = " ".join(keyword.split()).strip(" .,;:'\"")
        if len(word) >= 3 and not word[0].isdigit() and "\\" not in word:
            kept.setdefault(word.lower(), word)
    return tuple(kept.values())[:MAX_KEYWORDS]
