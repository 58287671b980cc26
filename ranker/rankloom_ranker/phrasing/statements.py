"""What can be said of evidence: ``sentences.txt``, sorted by what a sentence states.

``[a|b]`` stands for one of its parts. ``{titles}`` are the cited events, ``{this}`` is the
candidate, ``{shared}`` what they have in common, ``{taste}`` an attribute of the candidate; in
profiles ``{labels}`` are attributes. A sentence has no number, and claims nothing of other
people or other items, nor how sure or how strong it is: one explanation could not prove it.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def _read() -> Iterator[tuple[Statement, str]]:
    text = files("rankloom_ranker.phrasing").joinpath("sentences.txt").read_text(encoding="utf-8")
    statement = next(iter(Statement))
    for line in text.splitlines():
        if line.startswith("# "):
            statement = Statement[line[2:]]
        elif line:
            yield statement, line


_READ = tuple(_read())
SENTENCES = {each: tuple(line for of, line in _READ if of is each) for each in Statement}
