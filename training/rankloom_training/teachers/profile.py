"""A user's profile in plain words, from opinions alone."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np

from rankloom_engine.profile import clear_labels
from rankloom_ranker.phrasing.statements import Statement
from rankloom_ranker.phrasing.wording import Filler, Phrasing, listed, quoted
from rankloom_training.reasons.case import GENEROUS, MIN_EVENTS_FOR_LEVEL, PICKY, Opinion

MAX_NAMED = 2  # labels or titles in a sentence


def write_profile(opinions: Sequence[Opinion], seed: int) -> str:
    """Level, loved and avoided labels, newest likes and dislikes; empty without opinions.

    The same opinions and seed give the same words.
    """
    if not opinions:
        return ""
    phrasing = _phrasing(opinions, seed)
    labels = {label for item, _ in opinions for label in item.attributes}
    return " ".join([*_taste(opinions, labels, phrasing), *_newest(opinions, phrasing)])


def write_summary(opinions: Sequence[Opinion], labels: Container[str], seed: int) -> str:
    """Level, and those of the ``labels`` that are loved or avoided; no title."""
    return " ".join(_taste(opinions, labels, _phrasing(opinions, seed)))


def _phrasing(opinions: Sequence[Opinion], seed: int) -> Phrasing:
    return Phrasing(np.random.default_rng((seed, len(opinions))))


def _taste(
    opinions: Sequence[Opinion], labels: Container[str], phrasing: Phrasing
) -> Iterator[str]:
    if len(opinions) >= MIN_EVENTS_FOR_LEVEL:
        yield phrasing.say(_level(opinions), _filler(""))
    for liked, statement in ((True, Statement.PROFILE_LOVED), (False, Statement.PROFILE_AVOIDED)):
        judged = [(item.attributes, own) for item, own in opinions]
        if clear := [label for label in clear_labels(judged, liked=liked) if label in labels]:
            yield phrasing.say(statement, _filler(listed(clear[:MAX_NAMED])))


def _newest(opinions: Sequence[Opinion], phrasing: Phrasing) -> Iterator[str]:
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
