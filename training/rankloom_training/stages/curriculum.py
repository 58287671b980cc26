"""Which of the training rows an expert learns from: all, or ReasoningRec's K, of both classes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_training.data import Split
from rankloom_training.stages.rows import LogRows


class CurriculumError(ValueError):
    """There is nothing to train an expert on. The message says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Curriculum:
    """What an expert learns from, of the rows that the language model sees.

    ``with_words``: also what is said about them. ``shots``: so many rows that have a text, as
    many likes as dislikes, of each group; None: all rows. ``group``: (log rows,) the group of
    each training row; None: there is one.
    """

    with_words: bool
    shots: int | None
    group: NDArray[np.int64] | None = None

    def train_rows(self, rows: LogRows, lm_rows: int, texts: Collection[int]) -> NDArray[np.bool_]:
        """(log rows,) the rows to learn from. ``texts``: rows with a text.

        Raises CurriculumError.
        """
        seen = rows.for_language_model(Split.TRAIN, lm_rows)[rows.log.user]
        if self.shots is None:
            return np.asarray(seen)
        having = np.array(sorted(row for row in texts if seen[row]), dtype=np.int64)
        group = np.zeros(len(having)) if self.group is None else self.group[having]
        samples = [
            balanced_rows(part, rows.log.liked[part], self.shots, rows.seed)
            for part in (having[group == index] for index in np.unique(group))
        ]
        chosen = np.zeros(len(rows.log), np.bool_)
        chosen[np.concatenate([having[:0], *samples])] = True
        if not chosen.any():
            raise CurriculumError(
                "shots: no texts about likes and about dislikes to learn from; raise trace_share "
                "or lm_rows, or give other traces"
            )
        return chosen


def balanced_rows(
    rows: NDArray[np.int64], liked: NDArray[np.bool_], num: int, seed: int
) -> NDArray[np.int64]:
    """Up to ``num`` of ``rows``, as many liked as disliked, drawn at random, ascending.

    ``rows``, ``liked``: (n,). Learning from them shifts the share of likes: calibrate afterwards.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    sides = [order[liked[order]], order[~liked[order]]]
    size = min(num // 2, *map(len, sides))
    return np.sort(rows[np.concatenate([side[:size] for side in sides])])
