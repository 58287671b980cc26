"""How close a text comes to a reference: ROUGE-L and METEOR of exact words"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import starmap
from statistics import mean

_WORD = re.compile(r"\w+")
_USED = ("<", ">")  # in place of matched words: no words, and not equal


def words_in(text: str) -> list[str]:
    """In small letters, without punctuation."""
    return _WORD.findall(text.lower())


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin, 2004, with β = 1); 0 without one."""
    words, wanted = words_in(text), words_in(reference)
    common = _longest_common(words, wanted)
    return 2 * common / (len(words) + len(wanted)) if common else 0.0


def meteor(text: str, reference: str) -> float:
    """METEOR of exact words (Banerjee and Lavie, 2005, equations 1 to 3); 0 without a match.

    F = 10PR / (R + 9P), times 1 - 0.5 (chunks / matches)³. Words are aligned in runs, the longest
    first, which gives few chunks, though not always the fewest. No stems and no synonyms.
    """
    words, wanted = words_in(text), words_in(reference)
    runs = list(_matching_runs(words, wanted))
    if not runs:
        return 0.0
    matches = sum(runs)
    precision, recall = matches / len(words), matches / len(wanted)
    f_mean = 10 * precision * recall / (recall + 9 * precision)
    return f_mean * (1 - 0.5 * (len(runs) / matches) ** 3)


def _matching_runs(words: Sequence[str], wanted: Sequence[str]) -> Iterator[int]:
    """Lengths of runs of words that stand in both; each word is matched once at most."""
    left, right = list(words), list(wanted)
    while True:
        run = SequenceMatcher(None, left, right, autojunk=False).find_longest_match()
        if not run.size:
            return
        yield run.size
        left[run.a : run.a + run.size] = [_USED[0]] * run.size
        right[run.b : run.b + run.size] = [_USED[1]] * run.size


def _longest_common(words: Sequence[str], wanted: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(wanted) + 1)
    for word in words:
        before = lengths
        lengths = [0]
        for at, other in enumerate(wanted):
            longer = before[at] + 1 if word == other else max(before[at + 1], lengths[at])
            lengths.append(longer)
    return lengths[-1]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Means over ``num_rows`` texts beside their references, from 0 to 1.

    ``meteor_other``, ``rouge_l_other``: beside the reference of another row, which texts of one
    style reach without saying anything about their row.
    """

    num_rows: int
    meteor: float
    rouge_l: float
    meteor_other: float
    rouge_l_other: float


def overlap_of(texts: Sequence[str], references: Sequence[str]) -> Overlap:
    """Each text beside its reference, and beside that of the next row. At least one of each."""
    others = [*references[1:], references[0]]
    own, other = list(zip(texts, references, strict=True)), list(zip(texts, others, strict=True))
    return Overlap(
        len(texts),
        *(mean(starmap(measure, own)) for measure in (meteor, rouge_l)),
        *(mean(starmap(measure, other)) for measure in (meteor, rouge_l)),
    )
