"""Prompts that begin alike become one prompt, so that the model reads what they share once.

Each of them is then a candidate that sees only its own part of the shared prefix, and reads the
rest of its history as its own first tokens. Positions and contents are those of the prompt alone,
and so are its scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat, zip_longest

import numpy as np

from rankloom_engine.packing import Floats, Segment
from rankloom_engine.prompt import Prompt


def shared_prompt(prompts: Sequence[Prompt], trunk: Segment) -> Prompt:
    """One prompt with the candidates of all, in their order, behind parts of ``trunk``.

    All are to be scored with the same mixture.
    """
    lengths = [common_length(trunk, prompt.prefix) for prompt in prompts]
    candidates = tuple(
        Segment.joined([prompt.prefix.since(length), candidate])
        for prompt, length in zip(prompts, lengths, strict=True)
        for candidate in prompt.candidates
    )
    visible = np.repeat(lengths, [len(prompt.candidates) for prompt in prompts])
    return Prompt(trunk, candidates, prompts[0].num_events, tuple(visible.tolist()))


def common_length(one: Segment, other: Segment) -> int:
    """Tokens with which both segments begin, soft tokens compared by their vectors."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one.ids[:length] != other.ids[:length])
    end = int(differing[0]) if len(differing) else length
    for mine, theirs in zip_longest(_soft_tokens(one), _soft_tokens(other)):
        at = min(each[0] for each in (mine, theirs) if each is not None)
        if at >= end:
            break
        if mine is None or theirs is None or not _are_equal(mine, theirs):
            return at
    return end


def _soft_tokens(segment: Segment) -> Iterator[tuple[int, bool, Floats]]:
    """Index, whether it is tabular, and vector of each, in order."""
    latent = zip(segment.latent_at.tolist(), repeat(False), segment.latent)
    tabular = zip(segment.tabular_at.tolist(), repeat(True), segment.tabular)
    yield from sorted([*latent, *tabular], key=lambda each: each[0])


def _are_equal(one: tuple[int, bool, Floats], other: tuple[int, bool, Floats]) -> bool:
    return one[:2] == other[:2] and (one[2] is other[2] or np.array_equal(one[2], other[2]))
