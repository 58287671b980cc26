"""Checks that what a text names stands in its prompt: titles, attributes and years."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.reasons.problems import TraceProblem

_WORD = re.compile(r"\w+")
_YEAR = re.compile(r"\b(?:1[89]|20)\d\d\b")
_STRAIGHT = str.maketrans("\u201c\u201d\u201e\u2018\u2019", '"""\'\'')  # typographic quotes
_NAMED = "\x00"  # stands for a title of the prompt; no text has it
MIN_LABEL_CHARS = 3


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
        rest = _without_titles(text, items)
        if '"' in rest or any(self._names_title(part) for part in rest.split(_NAMED)):
            return TraceProblem.INVENTED_TITLE
        labels = {label for item in items for label in item.attributes}
        if any(found not in labels for found in self._labels.findall(rest)):
            return TraceProblem.INVENTED_ATTRIBUTE
        years = {str(item.year) for item in items if item.year is not None}
        if any(year not in years for year in _YEAR.findall(rest)):
            return TraceProblem.INVENTED_YEAR
        return None

    def _names_title(self, text: str) -> bool:
        words = _WORD.findall(text)
        return any(
            tuple(words[at : at + len(title)]) == title
            for at, word in enumerate(words)
            for title in self._titles.get(word, ())
        )


def cited_items(text: str, items: Iterable[Item]) -> tuple[Item, ...]:
    """The items whose titles a text has between double quotes, in the order of the items."""
    straight = text.translate(_STRAIGHT)
    return tuple(
        item
        for item in items
        if item.title and re.search(_quoted(re.escape(item.title.translate(_STRAIGHT))), straight)
    )


def _without_titles(text: str, items: Sequence[Item]) -> str:
    """The text with the prompt's titles taken out, longer ones first."""
    straight = text.replace(_NAMED, "").translate(_STRAIGHT)
    titles = sorted({item.title.translate(_STRAIGHT) for item in items if item.title}, key=len)
    if not titles:
        return straight
    names = "|".join(re.escape(title) for title in reversed(titles))
    straight = re.sub(_quoted(names), _NAMED, straight)
    return re.sub(rf"(?<!\w)(?:{names})(?!\w)", _NAMED, straight)


def _quoted(pattern: str) -> str:
    """Between double quotes, with the mark that some put before the closing one."""
    return rf'"(?:{pattern})[.,;!?]?"'


def _by_first_word(titles: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for words in _split(titles):
        found[words[0]].append(words)
    return dict(found)


def _split(titles: Iterable[str]) -> Iterator[tuple[str, ...]]:
    for title in set(titles):
        words = tuple(_WORD.findall(title.translate(_STRAIGHT)))
        if len(words) >= 2:
            yield words


def _any_of(labels: Iterable[str]) -> re.Pattern[str]:
    names = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{names})(?!\w)" if names else r"(?!)")
