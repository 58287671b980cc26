"""What a text about some items may say: it is read character by character.

Between double quotes stands the title of one of the items, and nothing else. Outside of them no
name of the catalogue stands that is not one of the items' own, and no number but theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rankloom_engine.lexicon import (
    Lexicon,
    Named,
    folded,
    is_invisible,
    names_of,
    numbers_of,
    plain,
    words_of,
)

QUOTE = '"'
_OTHER_QUOTES = frozenset("\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02\u301d\u301e\u301f\u2033")


@dataclass(frozen=True, slots=True)
class TextState:
    """What is known behind a text.

    ``word``: its last, unfinished word; ``digits``: the run of digits at the end of it.
    ``open_names``: beginnings of names that its last words are. ``is_quoted``: it ends with an
    opening quote.
    """

    word: str = ""
    digits: str = ""
    open_names: tuple[str, ...] = ()
    is_quoted: bool = False


class TextRules:
    """The rules of one text. ``titles``: what may stand between quotes. Immutable."""

    def __init__(self, lexicon: Lexicon, items: Sequence[Named]) -> None:
        self._lexicon = lexicon
        self._names, self._numbers = names_of(items), numbers_of(items)
        self._beginnings = {number[:end] for number in self._numbers for end in range(len(number))}
        titles = (item.title.replace(QUOTE, "'").strip() for item in items)
        self.titles = tuple(dict.fromkeys(title for title in titles if words_of(title)))

    def read(self, state: TextState, text: str) -> TextState | None:
        """The state behind more text; None where the rules forbid it."""
        for character in text:
            found = None if state.is_quoted else self._read(state, character)
            if found is None:
                return None
            state = found
        return state

    def end(self, state: TextState) -> TextState | None:
        """The state behind the unfinished word; None where a text must not end with it."""
        if state.is_quoted or not self._may_end_number(state):
            return None
        if not state.word:
            return state
        word = state.word.casefold()
        if state.word in self._lexicon.single and word not in self._names:
            return None
        names = self._continued((*state.open_names, ""), word)
        if any(self._is_foreign(name) for name in names):
            return None
        return TextState(open_names=names)

    def behind_title(self, state: TextState, title: str) -> TextState | None:
        """The state behind a quoted title; None where it ends a name that began before it.

        Names inside of the title belong to it.
        """
        before, inside = state.open_names, tuple[str, ...]()
        for word in folded(title).split(" "):
            before = self._continued(before, word)
            if any(self._is_foreign(name) for name in before):
                return None
            inside = self._continued((*inside, ""), word)
        return TextState(open_names=tuple(dict.fromkeys((*before, *inside))))

    def needs_digit(self, state: TextState) -> bool:
        """Whether the number that the text ends with is not whole."""
        return not self._may_end_number(state)

    def _read(self, state: TextState, character: str) -> TextState | None:
        if character == QUOTE or character in _OTHER_QUOTES:
            ended = self.end(state)
            return replace(ended, is_quoted=True) if ended and character == QUOTE else None
        if is_invisible(character):
            return None  # it would hide a name
        for each in plain(character):
            found = self._read_plain(state, each)
            if found is None:
                return None
            state = found
        return state

    def _read_plain(self, state: TextState, character: str) -> TextState | None:
        if not character.isalnum():
            return self.end(state)
        if not character.isdecimal():
            longer = replace(state, word=state.word + character, digits="")
            return longer if self._may_end_number(state) else None
        digits = state.digits + character
        if digits not in self._beginnings and digits not in self._numbers:
            return None
        return replace(state, word=state.word + character, digits=digits)

    def _may_end_number(self, state: TextState) -> bool:
        return not state.digits or state.digits in self._numbers

    def _continued(self, names: Iterable[str], word: str) -> tuple[str, ...]:
        """The beginnings of names that the word continues."""
        longer = (f"{name} {word}" if name else word for name in names)
        return tuple(dict.fromkeys(each for each in longer if each in self._lexicon.prefixes))

    def _is_foreign(self, name: str) -> bool:
        return name in self._lexicon.names and name not in self._names
