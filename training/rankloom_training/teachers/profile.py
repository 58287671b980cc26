"""A user's profile in plain words, from opinions alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rankloom_ranker.phrasing.statements import Statement
from rankloom_ranker.phrasing.wording import Filler, Phrasing, listed, quoted
from rankloom_training.reasons.case import (
    GENEROUS,
    MIN_EVENTS_FOR_LEVEL,
    PICKY,
    Opinion,
    share_liked,
)

MIN_LABEL_EVENTS, CLEAR_SHARE = 3, 0.7
MAX_NAMED = 2  # labels or titles in a sentence


def write_profile(opinions: Sequence[Opinion], seed: int) -> str:
    """Level, loved and avoided labels, newest likes and dislikes; empty without opinions.

    The same opinions and seed give the same words.
    """
    if not opinions:
        return ""
    phrasing = Phrasing(np.random.default_rng((seed, len(opinions))))
    return " ".join(_sentences(opinions, phrasing))


def _sentences(opinions: Sequence[Opinion], phrasing: Phrasing) -> Iterator[str]:
    if len(opinions) >= MIN_EVENTS_FOR_LEVEL:
        yield phrasing.say(_level(opinions), _filler(""))
    for liked, statement in ((True, Statement.PROFILE_LOVED), (False, Statement.PROFILE_AVOIDED)):
        if labels := _clear_labels(opinions, liked):
            yield phrasing.say(statement, _filler(listed(labels)))
    for liked, statement in ((True, Statement.PROFILE_LIKES), (False, Statement.PROFILE_DISLIKES)):
        if titles := [quoted(item.title) for item, own in opinions if own == liked and item.title]:
            yield phrasing.say(statement, _filler(listed(titles[-MAX_NAMED:])))


def _filler(text: str) -> Filler:
    return lambda _: text


def _level(opinions: Sequence[Opinion]) -> Statement:
    share = sum(liked for _, liked in opinions) / len(opinions)
    if share >= GENEROUS:
        return Statement.PROFILE_GENEROUS
    return Statement.PROFILE_PICKY if share <= PICKY else Statement.PROFILE_EVEN


def _clear_labels(opinions: Sequence[Opinion], liked: bool) -> list[str]:
    """Labels on which the opinion is clear, the clearest first."""
    labels = dict.fromkeys(label for item, _ in opinions for label in item.attributes)
    shares = {label: share_liked(opinions, label) for label in labels}
    agreeing = {
        label: share if liked else 1.0 - share
        for label, (share, num_events) in shares.items()
        if num_events >= MIN_LABEL_EVENTS
    }
    clear = [label for label, share in agreeing.items() if share >= CLEAR_SHARE]
    return sorted(clear, key=lambda label: -agreeing[label])[:MAX_NAMED]
