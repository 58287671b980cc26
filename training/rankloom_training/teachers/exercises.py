"""Exercises in telling evidence: invented events, and what the evidence teacher says of them.

Items, opinions and influences are drawn at random, so an exercise says nothing about any user. A
small decoder learns from many of them to say what its evidence is, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rankloom_features.catalogue import Catalogue
from rankloom_training.reasons.case import EventInfluence, TraceCase
from rankloom_training.teachers.evidence import EvidenceText, write_evidence
from rankloom_training.words import Cited, Exercise

MAX_EVENTS = 4


def exercises(catalogue: Catalogue, number: int, seed: int) -> Iterator[Exercise]:
    """About ``number``, with an event each; the same arguments give the same exercises."""
    random = np.random.default_rng(seed)
    for row in range(number if len(catalogue.items) > 1 else 0):
        case = _case(catalogue, row, random)
        written = write_evidence(case, case.liked, seed, cited_only=True)
        if written is not None:
            candidate = catalogue.index(case.candidate.item_id)
            yield Exercise(candidate, case.liked, written.text, _cited(catalogue, written))


def _case(catalogue: Catalogue, row: int, random: np.random.Generator) -> TraceCase:
    most = min(MAX_EVENTS, len(catalogue.items) - 1)
    number = int(random.integers(1, most + 1))
    candidate, *seen = random.choice(len(catalogue.items), number + 1, replace=False).tolist()
    opinions, influences = random.random(number) < 0.5, random.normal(size=number)
    events = tuple(
        EventInfluence(catalogue.items[item], bool(liked), float(influence))
        for item, liked, influence in zip(seen, opinions, influences, strict=True)
    )
    liked = bool(random.random() < 0.5)
    return TraceCase(row, events, catalogue.items[candidate], liked, float(influences.sum()))


def _cited(catalogue: Catalogue, written: EvidenceText) -> tuple[Cited, ...]:
    return tuple(
        Cited(catalogue.index(each.item.item_id), each.liked, each.influence > 0.0)
        for each in (*written.cited, *written.against)
    )
