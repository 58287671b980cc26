"""Reads the verdict that begins a text: Yes or No, alone.

A search for the letters would find No in "Not", "Now" and "Know"; a word boundary would still
find it in "No doubt you will like it". So a mark or a line's end must follow.
"""

from __future__ import annotations

import re

YES, NO = "Yes", "No"
_VERDICT = re.compile(
    r"\s*(?:\*\*)?(Yes|No)(?:\*\*)?[ \t]*(?:[.,:;!\u2013\u2014-]+|\n|$)(?:\*\*)?\s*"
)


def word_of(verdict: bool) -> str:
    """Yes or No."""
    return YES if verdict else NO


def verdict_of(word: str) -> bool | None:
    """The verdict that is exactly this word."""
    return {YES: True, NO: False}.get(word)


def split_verdict(text: str) -> tuple[bool | None, str]:
    """The verdict at the start of a text, and the text behind it; None and all of it without."""
    if (found := _VERDICT.match(text)) is None:
        return None, text.strip()
    return found[1] == YES, text[found.end() :].strip()
