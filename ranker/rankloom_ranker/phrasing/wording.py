"""Puts a sentence into words: one of its wordings, with the blanks filled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rankloom_engine.prompt import Readable
from rankloom_ranker.phrasing.statements import SENTENCES, Statement

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_BLANK = re.compile(r"\{(\w+)\}")
Filler = Callable[[str], str]
Sentences = Mapping[Statement, Sequence[str]]


class Phrasing:
    """Draws from a seeded generator: the same seed says the same things in the same words."""

    def __init__(self, random: np.random.Generator, sentences: Sentences = SENTENCES) -> None:
        self._random, self._sentences = random, sentences

    def say(self, statement: Statement, filled: Filler) -> str:
        """One of the statement's sentences. ``filled``: from a blank's name to its text."""
        sentence = self.pick(self._sentences[statement])
        worded = _CHOICE.sub(lambda found: self.pick(found[1].split("|")), sentence)
        return _capital(_BLANK.sub(lambda found: filled(found[1]), worded))

    def pick(self, choices: Sequence[str]) -> str:
        return choices[int(self._random.integers(len(choices)))]


def num_words(parts: Sequence[str]) -> int:
    return sum(len(part.split()) for part in parts)


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def shared_attributes(candidate: Readable, items: Sequence[Readable]) -> list[str]:
    """Attributes of the candidate that all of the items have."""
    return [name for name in candidate.attributes if all(name in i.attributes for i in items)]


def quoted(title: str) -> str:
    """Between double quotes; inside of them a title's own become single ones."""
    return '"{}"'.format(title.replace('"', "'"))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
