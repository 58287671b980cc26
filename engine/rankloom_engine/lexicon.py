"""The names of a catalogue, to be found in a text word by word: titles and attributes.

A word is a run of letters and digits. Accents, compatibility forms and invisible characters do
not count. Names of two words and more, and attributes, are names in any case of their letters. A
title of one word is a name only as it is written, since "It" names a film and "it" does not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")  # behind a title, in catalogues without a column for it
_ARTICLE = re.compile(r"^(.*), (\w{1,3}|\w+')$")  # "Matrix, The"


class Named(Protocol):
    """An item as it can be named."""

    @property
    def title(self) -> str: ...

    @property
    def year(self) -> int | None: ...

    @property
    def attributes(self) -> tuple[str, ...]: ...


class Lexicon:
    """Names in any case (folded words with a space between), and one-word titles as written.

    ``prefixes``: the first words of all names in any case. Immutable.
    """

    def __init__(self, items: Iterable[Named]) -> None:
        names: set[str] = set()
        single: set[str] = set()
        for item in items:
            for words in map(words_of, title_forms(item.title)):
                (names if len(words) > 1 else single).add(" ".join(words))
            names.update(" ".join(words_of(label)) for label in item.attributes)
        self.single = frozenset(single - {""})
        self.names = frozenset(name.casefold() for name in names) - {""}
        self.prefixes = frozenset(prefix for name in self.names for prefix in _prefixes(name))


def names_of(items: Iterable[Named]) -> frozenset[str]:
    """What may be said of these items: their titles and attributes, folded."""
    names = (name for item in items for name in (*title_forms(item.title), *item.attributes))
    return frozenset(folded(name) for name in names)


def numbers_of(items: Sequence[Named]) -> frozenset[str]:
    """Numbers that belong to these items: years, their decades, and those in names."""
    years = [item.year for item in items if item.year is not None]
    texts = [text for item in items for text in (item.title, *item.attributes)]
    in_names = (run for text in texts for run in re.findall(r"\d+", _plain_text(text)))
    return frozenset([*map(str, years), *(str(year // 10 * 10) for year in years), *in_names])


def title_forms(title: str) -> Iterator[str]:
    """A title without a year behind it, and with its article in front."""
    bare = _YEAR.sub("", title)
    yield bare
    if found := _ARTICLE.match(bare):
        yield f"{found[2]} {found[1]}"


def folded(text: str) -> str:
    """The words of a text in lower case, with a space between."""
    return " ".join(words_of(text)).casefold()


def words_of(text: str) -> list[str]:
    """The words of a text as they are written, without accents."""
    return "".join(c if c.isalnum() else " " for c in _plain_text(text)).split()


@lru_cache(maxsize=1 << 16)
def plain(character: str) -> str:
    """A character without accents, digits as 0 to 9; empty for an invisible one."""
    if character.isspace():
        return " "
    parts = unicodedata.normalize("NFKD", character)
    visible = (c for c in parts if unicodedata.category(c)[0] not in "MC")
    return "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in visible)


@lru_cache(maxsize=1 << 16)
def is_invisible(character: str) -> bool:
    """Whether it is a control, format or unassigned character, other than white space."""
    return unicodedata.category(character)[0] == "C" and not character.isspace()


def _plain_text(text: str) -> str:
    return "".join(map(plain, text))


def _prefixes(name: str) -> Iterator[str]:
    words = name.split(" ")
    return (" ".join(words[:end]) for end in range(1, len(words) + 1))
