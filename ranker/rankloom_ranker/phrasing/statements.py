"""What can be said of evidence, sorted by what a sentence states.

``sentences.txt`` is taught to language models and offered to them; ``further_sentences.txt`` is
offered alone, so that a further sentence needs no training and changes none.

``[a|b]`` stands for one of its parts. ``{titles}`` are the cited events, ``{this}`` is the
candidate, ``{shared}`` what they have in common, ``{taste}`` an attribute of the candidate; in
profiles ``{labels}`` are attributes. A sentence has no number, and claims nothing of other
people or other items, nor how sure or how strong it is: one explanation could not prove it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum, auto
from importlib.resources import files


class Statement(StrEnum):
    """What a sentence states. The name begins with the verdict that it is for, or PROFILE."""

    YES_FOR_LIKED = auto()  # liked events that raise the score
    YES_FOR_DISLIKED = auto()  # disliked events that raise it
    YES_SHARED = auto()  # the cited events and the candidate have attributes in common
    YES_TASTE = auto()  # most events with an attribute of the candidate were liked
    YES_AGAINST_LIKED = auto()  # counter-evidence
    YES_AGAINST_DISLIKED = auto()
    YES_GENEROUS = auto()  # the user likes most events
    YES_PICKY = auto()
    YES_RISING = auto()  # more likes among the newest events
    YES_FALLING = auto()
    YES_THIN = auto()  # no event raises the score
    YES_END = auto()
    NO_FOR_DISLIKED = auto()
    NO_FOR_LIKED = auto()
    NO_SHARED = auto()
    NO_TASTE = auto()
    NO_AGAINST_LIKED = auto()
    NO_AGAINST_DISLIKED = auto()
    NO_GENEROUS = auto()
    NO_PICKY = auto()
    NO_RISING = auto()
    NO_FALLING = auto()
    NO_THIN = auto()
    NO_END = auto()
    PROFILE_GENEROUS = auto()
    PROFILE_EVEN = auto()
    PROFILE_PICKY = auto()
    PROFILE_LOVED = auto()  # attributes that the user mostly likes
    PROFILE_AVOIDED = auto()
    PROFILE_LIKES = auto()  # some of the newest likes
    PROFILE_DISLIKES = auto()


def _read(name: str) -> Iterator[tuple[Statement, str]]:
    text = files("rankloom_ranker.phrasing").joinpath(name).read_text(encoding="utf-8")
    statement = next(iter(Statement))
    for line in text.splitlines():
        if line.startswith("# "):
            statement = Statement[line[2:]]
        elif line:
            yield statement, line


def _by_statement(*names: str) -> Mapping[Statement, tuple[str, ...]]:
    read = [each for name in names for each in _read(name)]
    return {each: tuple(line for of, line in read if of is each) for each in Statement}


TAUGHT = _by_statement("sentences.txt")
SENTENCES = _by_statement("sentences.txt", "further_sentences.txt")
