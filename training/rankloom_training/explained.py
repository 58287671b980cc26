"""How far explanations can be trusted: verdicts, names, evidence and variety of served texts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import rankloom
from rankloom_features.catalogue import Catalogue, Item
from rankloom_training.reasons.grounding import Grounding, named_items
from rankloom_training.text_overlap import Overlap, overlap_of

NUM_LARGEST = 3
_SENTENCE = re.compile(r"[.!?]\s")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """A served explanation, and what it was asked about.

    ``ranked``: the probability of the same item in a ranking of the same history. ``reference``:
    what a teacher wrote about the row, without the verdict; empty if it wrote nothing.
    """

    user: str
    candidate: Item
    explanation: rankloom.Explanation
    ranked: float
    reference: str = ""


@dataclass(frozen=True, slots=True)
class ExplanationReport:
    """Measured over ``num_rows`` explanations.

    ``written``: share with a text. ``agreement``: share whose verdict is the side of the ranked
    probability. ``grounded``: share of texts that name only what their prompt has. ``faithful``:
    of the events that texts cite for their verdict, share whose influence has its sign.
    ``largest``: share of texts with evidence that cite one of the three events of largest
    influence. ``distinct_2``: distinct pairs of words ÷ pairs. ``repeated``: of pairs of users who
    were explained one item, share with one text. ``words``: mean number. ``overlap``: with what
    a teacher wrote about the same rows; None without references.
    """

    num_rows: int
    written: float
    agreement: float
    grounded: float
    faithful: float
    largest: float
    distinct_2: float
    repeated: float
    words: float
    overlap: Overlap | None = None


def report_of(rows: Sequence[ExplainedRow], catalogue: Catalogue) -> ExplanationReport:
    """NaN where there is nothing to divide by."""
    told = [row for row in rows if row.explanation.text]
    grounding = Grounding(catalogue)
    texts = [row.explanation.text for row in told]
    return ExplanationReport(
        num_rows=len(rows),
        written=_share(bool(row.explanation.text) for row in rows),
        agreement=_share(map(_agrees, rows)),
        grounded=_share(
            grounding.problem(row.explanation.text, _prompt_items(row, catalogue)) is None
            for row in told
        ),
        faithful=_share(
            (influence > 0.0) == _is_like(row.explanation)
            for row in told
            for influence in cited_for(row.explanation, catalogue)
        ),
        largest=_share(
            _cites_largest(row.explanation, catalogue) for row in told if row.explanation.evidence
        ),
        distinct_2=_distinct_pairs(texts),
        repeated=_repeated(told),
        words=float(np.mean([len(text.split()) for text in texts])) if texts else float("nan"),
        overlap=_overlap(rows),
    )


def cited_for(explanation: rankloom.Explanation, catalogue: Catalogue) -> list[float]:
    """Influences of the events that a text cites for its verdict.

    These are the events of the first sentence that names any; what only a later sentence names
    is counter-evidence.
    """
    for sentence in _SENTENCE.split(explanation.text):
        if found := _cited(sentence, explanation, catalogue):
            return [each.influence for each in found]
    return []


def _overlap(rows: Sequence[ExplainedRow]) -> Overlap | None:
    """Of all rows with a reference: a missing text overlaps with nothing."""
    having = [row for row in rows if row.reference]
    if not having:
        return None
    return overlap_of([row.explanation.text for row in having], [row.reference for row in having])


def _cites_largest(explanation: rankloom.Explanation, catalogue: Catalogue) -> bool:
    ranked = sorted(explanation.evidence, key=lambda each: -abs(each.influence))
    cited = {each.item_id for each in _cited(explanation.text, explanation, catalogue)}
    return any(each.item_id in cited for each in ranked[:NUM_LARGEST])


def _cited(
    text: str, explanation: rankloom.Explanation, catalogue: Catalogue
) -> list[rankloom.Evidence]:
    items = [item for each in explanation.evidence if (item := catalogue.get(each.item_id))]
    named = {item.item_id for item in named_items(text, items)}
    return [each for each in explanation.evidence if each.item_id in named]


def _prompt_items(row: ExplainedRow, catalogue: Catalogue) -> list[Item]:
    items = [catalogue.get(each.item_id) for each in row.explanation.evidence]
    return [*(item for item in items if item is not None), row.candidate]


def _is_like(explanation: rankloom.Explanation) -> bool:
    return explanation.verdict is rankloom.Verdict.LIKED


def _agrees(row: ExplainedRow) -> bool:
    return _is_like(row.explanation) == (row.ranked >= 0.5)


def _distinct_pairs(texts: Iterable[str]) -> float:
    words = [_WORD.findall(text.lower()) for text in texts]
    pairs = [pair for own in words for pair in itertools.pairwise(own)]
    return len(set(pairs)) / len(pairs) if pairs else float("nan")


def _repeated(rows: Sequence[ExplainedRow]) -> float:
    """Over all pairs of explanations of one item to two users."""
    return _share(
        one.explanation.text == other.explanation.text
        for at, one in enumerate(rows)
        for other in rows[:at]
        if one.candidate.item_id == other.candidate.item_id and one.user != other.user
    )


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return float(np.mean(found)) if found else float("nan")
