"""Which labels may be seen when a row is scored: the protocols P0 and P1.

P1 lets a model see all of the user's earlier events. P0 hides the user's earlier
dislikes, but for those of the training rows. Hidden events are taken out before any
sequence is built, so that no gap tells of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from rankloom_features.events import History
from rankloom_training.data import Interactions, Split


class Protocol(StrEnum):
    """How much of a user's own past a model sees when it scores a row."""

    P0 = "p0"
    P1 = "p1"


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A way to look at the log: rows to learn from or score, and what each may see.

    ``rows``: (n,) int64 places in the log, ascending. ``cutoff``: (users,) int64; a
    user's dislikes are visible in rows before this place, likes always.
    """

    rows: NDArray[np.int64]
    cutoff: NDArray[np.int64]

    def visible_before(self, log: Interactions, row: int) -> NDArray[np.int64]:
        """Places of the user's earlier rows that may be seen, oldest first."""
        user = log.user[row]
        earlier = np.arange(int(log.start[user]), row)
        return np.asarray(earlier[log.liked[earlier] | (earlier < self.cutoff[user])])

    def history_before(self, log: Interactions, row: int) -> History:
        """The visible events before a row."""
        places = self.visible_before(log, row)
        return History(log.item[places], log.liked[places])


def scoring_view(log: Interactions, protocol: Protocol, split: Split) -> View:
    """The rows of one split, each seen as the protocol lets a server see it."""
    rows = np.flatnonzero(log.split == split)
    return View(rows, _scoring_cutoff(log, protocol))


def training_views(log: Interactions, protocol: Protocol, seed: int) -> tuple[View, ...]:
    """The training rows as a model will meet such rows when it serves.

    Under P1 there is one view: all earlier events. Under P0 a served user has known
    dislikes up to some moment, or none at all, so there are two: in the first, each
    user's dislikes are known before a random row, and only the rows from there on
    are learned from; in the second no dislike is known.
    """
    rows = np.flatnonzero(log.split == Split.TRAIN)
    if protocol is Protocol.P1:
        return (View(rows, _scoring_cutoff(log, protocol)),)
    last = log.start + np.bincount(log.user[rows], minlength=log.num_users)
    random = np.random.default_rng(seed).integers(log.start, np.maximum(last, log.start + 1))
    return (
        View(rows[rows >= random[log.user[rows]]], random),
        View(rows, log.start.copy()),
    )


def _scoring_cutoff(log: Interactions, protocol: Protocol) -> NDArray[np.int64]:
    if protocol is Protocol.P1:
        return np.full(log.num_users, len(log), dtype=np.int64)
    train = np.bincount(log.user[log.split == Split.TRAIN], minlength=log.num_users)
    return log.start + train
