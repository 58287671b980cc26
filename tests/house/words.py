"""Retired words of the glossary, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_SHOWN = 100  # characters of a line
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class RetiredWord:
    """``pattern``: what is retired, matched as whole words in lower case.

    ``unless``: lines on which the word has another, good meaning.
    """

    pattern: str
    instead: str
    unless: str = r"(?!)"

    def find(self, line: str) -> str | None:
        """The word as it stands in a line that `plain` made."""
        found = re.search(rf"\b(?:{self.pattern})\b", line)
        return found[0] if found and not re.search(self.unless, line) else None


RETIRED = (
    RetiredWord(r"weav(?:e|es|er|ers|ing)|woven?", "routing, mixture or user context"),
    RetiredWord(r"rungs?|ladders?", "fallback level"),
    RetiredWord(
        r"generations?", "revision", unless=r"text generation|generation config|bert-generation"
    ),
    RetiredWord(
        r"epochs?",
        "feature version",
        unless=r"(?:base|best|two|three|few|\d+|each|per|every|training) epochs?|epoch(?:s:? )?\d"
        r"|\.epochs",
    ),
    RetiredWord(r"seats?", "engine handle"),
    RetiredWord(r"semantics", "fusion"),
    RetiredWord(r"degraded", "fallback"),
    RetiredWord(r"planted", "synthetic"),
    RetiredWord(r"told as", "reported as"),
    RetiredWord(r"gate\.json", "router.json"),
    RetiredWord(r"lifetimes", "deployment"),
    RetiredWord(r"held prefix(?:es)?", "cached prefix"),
    RetiredWord(r"paces?", "rate limit"),
    RetiredWord(r"priors?", "tree logits", unless=r"prior (?:to|work|rows)|mean prior"),
)


def plain(text: str) -> str:
    """Lower case, with the words of identifiers apart: `HeldPrefix` and `held_prefix` alike."""
    return _CAMEL.sub(" ", text.replace("_", " ")).lower()


def retired_words(texts: Mapping[str, Iterable[str]]) -> list[str]:
    """What to change in the texts of each file or command, line by line."""
    return list(
        dict.fromkeys(
            f"{where}: {word!r} is retired, write {retired.instead!r}: {line.strip()[:MAX_SHOWN]}"
            for where, parts in texts.items()
            for text in parts
            for line in text.splitlines()
            for retired in RETIRED
            if (word := retired.find(plain(line)))
        )
    )
