"""Checks that what a text names stands in its prompt: titles, attributes and years."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.reasons.problems import TraceProblem

_WORD = re.compile(r"\w+")
_YEAR = re.compile(r"\b(?:1[89]|20)\d\d\b")
_STRAIGHT = str.maketrans("\u201c\u201d\u201e\u2018\u2019", '"""\'\'')  # typographic quotes
_NAMED = "\x00"  # stands for a title of the prompt; no text has it
MIN_TITLE_WORDS, MIN_LABEL_CHARS = 2, 3  # of what is found outside of quotes


class Grounding:
    """Checks texts against one catalogue.

    A title of the prompt may be named anywhere. Another title is found between double quotes,
    and outside of them if it has two words or more: a title such as "It" is also a word.
    Attributes are found as the catalogue writes them.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._titles = _by_first_word(item.title for item in catalogue.items)
        labels = {label for item in catalogue.items for label in item.attributes}
        self._labels = _any_of(label for label in labels if len(label) >= MIN_LABEL_CHARS)

    def problem(self, text: str, items: Sequence[Item]) -> TraceProblem | None:
        """The first thing that a text names and its prompt's ``items`` do not have."""
        titles = {item.title.translate(_STRAIGHT) for item in items if item.title}
        names = "|".join(map(re.escape, sorted(titles, key=len, reverse=True))) or "(?!)"
        unquoted = re.sub(_quoted(names), _NAMED, text.replace(_NAMED, "").translate(_STRAIGHT))
        allowed = set(map(_words, titles))
        if '"' in unquoted or any(self._names_other(p, allowed) for p in unquoted.split(_NAMED)):
            return TraceProblem.INVENTED_TITLE
        rest = re.sub(rf"(?<!\w)(?:{names})(?!\w)", _NAMED, unquoted)
        labels = {label for item in items for label in item.attributes}
        if any(found not in labels for found in self._labels.findall(rest)):
            return TraceProblem.INVENTED_ATTRIBUTE
        years = {str(item.year) for item in items if item.year is not None}
        if any(year not in years for year in _YEAR.findall(rest)):
            return TraceProblem.INVENTED_YEAR
        return None

    def _names_other(self, text: str, allowed: Set[tuple[str, ...]]) -> bool:
        """Whether a title of the catalogue stands there, the longest where several begin."""
        words, at = _words(text), 0
        while at < len(words):
            titles = [
                title
                for title in self._titles.get(words[at], ())
                if words[at : at + len(title)] == title
            ]
            if titles and max(titles, key=len) not in allowed:
                return True
            at += max(map(len, titles), default=1)
        return False


def named_items(text: str, items: Iterable[Item]) -> tuple[Item, ...]:
    """The items whose titles a text names, in the order of the items."""
    return tuple(item for item in items if item.title and title_positions(text, item.title))


def title_positions(text: str, title: str) -> list[int]:
    """Where a text has the title, not inside of a word."""
    name = re.escape(title.translate(_STRAIGHT))
    return [
        found.start() for found in re.finditer(rf"(?<!\w){name}(?!\w)", text.translate(_STRAIGHT))
    ]


def _quoted(pattern: str) -> str:
    """Between double quotes, with the mark that some put before the closing one."""
    return rf'"(?:{pattern})[.,;!?]?"'


def _by_first_word(titles: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for words in {_words(title.translate(_STRAIGHT)) for title in titles}:
        if len(words) >= MIN_TITLE_WORDS:
            found[words[0]].append(words)
    return dict(found)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text))


def _any_of(labels: Iterable[str]) -> re.Pattern[str]:
    names = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{names})(?!\w)" if names else r"(?!)")
