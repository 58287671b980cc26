"""Which earlier events a model may see when it scores a row: the protocols P0 and P1.

P1: all of the user's earlier events. P0: the user's earlier likes, and the dislikes of
training rows. Where dislikes are sampled, both are the user's earlier likes. Hidden events are
removed before a sequence is built, so that no gap shows where they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from rankloom_features.events import History
from rankloom_features.histories import Histories
from rankloom_features.session_columns import SESSION_S
from rankloom_training.data import Interactions, Split

TABLE_ROWS = 2_000_000  # training rows with features, at most: all rows of some users
_STREAM = 2  # other draws of the same seed are independent of these
VALID_SHARE = 4  # so many times fewer validation rows are seen where rows are limited


class Protocol(StrEnum):
    """Which of a user's earlier events a model sees when it scores a row."""

    P0 = "p0"
    P1 = "p1"


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Rows of the log to train on or to score, and which earlier events each may see.

    ``rows``: (n,) indices into the log, ascending. ``cutoff``: (users,) indices into the
    log: a user's dislikes are visible in rows before it. Likes are always visible. ``asked``:
    (log rows,) the row at whose time each row is asked for, of which it sees what is before; None:
    the row itself.
    """

    rows: NDArray[np.int64]
    cutoff: NDArray[np.int64]
    asked: NDArray[np.int64] | None = None

    def only(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> View:
        """Some of the rows: a mask or indices of ``rows``."""
        return View(self.rows[chosen], self.cutoff, self.asked)

    def as_they_come(self) -> View:
        """The same rows, each of which is asked for at its own time."""
        return View(self.rows, self.cutoff)

    @property
    def ends(self) -> NDArray[np.int64]:
        """(n,) the row at whose time each of ``rows`` is asked for."""
        return self.rows if self.asked is None else self.asked[self.rows]

    def visible_before(self, log: Interactions, row: int) -> NDArray[np.int64]:
        """Indices of the user's earlier rows that are visible, oldest first."""
        user = log.user[row]
        end = row if self.asked is None else self.asked[row]
        earlier = np.arange(int(log.start[user]), end)
        return np.asarray(earlier[log.liked[earlier] | (earlier < self.cutoff[user])])

    def visible(self, log: Interactions) -> NDArray[np.int64]:
        """Indices of the rows that later rows of the same user may see, ascending."""
        return np.flatnonzero(log.liked | (np.arange(len(log)) < self.cutoff[log.user]))

    def histories(self, log: Interactions) -> Histories:
        """What each of ``rows`` may see. All share the events of the log."""
        visible = self.visible(log)
        return Histories(
            log.item[visible],
            log.liked[visible],
            log.time[visible],
            np.searchsorted(visible, log.start[log.user[self.rows]]),
            np.searchsorted(visible, self.ends),
        )

    def history_before(self, log: Interactions, row: int) -> History:
        rows = self.visible_before(log, row)
        return History(log.item[rows], log.liked[rows], log.time[rows])


def scoring_view(log: Interactions, protocol: Protocol, split: Split) -> View:
    """The rows of one split, each with the events that a server would see."""
    rows = np.flatnonzero(log.split == split)
    return View(rows, _scoring_cutoff(log, protocol))


def training_views(log: Interactions, protocol: Protocol, seed: int) -> tuple[View, ...]:
    """The training rows, with the kind of history that the model gets in production.

    P1 has one view, with all earlier events. In P0, a served user has dislikes up to some
    moment, or none, so there are two views. In the first, each user's dislikes are visible
    before a random row, and only the rows from there on are trained on. In the second, no
    dislike is visible.
    Likes alone are seen as users who come back see them, in half of the sessions (``coming_back``).
    """
    rows = np.flatnonzero(log.split == Split.TRAIN)
    if log.sampled:
        return (View(rows, _scoring_cutoff(log, protocol), coming_back(log, seed)),)
    if protocol is Protocol.P1:
        return (View(rows, _scoring_cutoff(log, protocol)),)
    last = log.start + np.bincount(log.user[rows], minlength=log.num_users)
    random = np.random.default_rng(seed).integers(log.start, np.maximum(last, log.start + 1))
    return (
        View(rows[rows >= random[log.user[rows]]], random),
        View(rows, log.start.copy()),
    )


def validation_view(log: Interactions, protocol: Protocol, seed: int) -> View:
    """The validation rows, with the kind of history that the training rows have."""
    view = scoring_view(log, protocol, Split.VALID)
    return View(view.rows, view.cutoff, coming_back(log, seed)) if log.sampled else view


def coming_back(log: Interactions, seed: int) -> NDArray[np.int64]:
    """(rows,) the row at whose time each row is asked for: in half of the sessions, drawn at
    random, the session's first.

    Most likes follow others of the same session, and what goes with these says much of them. A
    model that saw only such rows would expect as much of the last session when a user comes back.
    """
    session, every = sessions(log), np.arange(len(log))
    hidden = np.random.default_rng((seed, _STREAM)).random(len(log)) < 0.5
    first = np.searchsorted(session, session)
    return np.where(hidden[first], first, every)


def sessions(log: Interactions) -> NDArray[np.int64]:
    """(rows,) the number of each row's session, ascending."""
    begins = np.ones(len(log), np.bool_)
    begins[1:] = (np.diff(log.user) != 0) | (np.diff(log.time) >= SESSION_S)
    return np.cumsum(begins, dtype=np.int64)


def _scoring_cutoff(log: Interactions, protocol: Protocol) -> NDArray[np.int64]:
    if log.sampled:
        return log.start
    if protocol is Protocol.P1:
        return np.full(log.num_users, len(log), dtype=np.int64)
    train = np.bincount(log.user[log.split == Split.TRAIN], minlength=log.num_users)
    return log.start + train


def sampled_users(
    user: NDArray[np.int64], num_users: int, max_rows: int, seed: int
) -> NDArray[np.bool_]:
    """(num_users,) a random choice of whole users who have at most ``max_rows`` of the rows.

    ``user``: (rows,) the user of each row. One user is always chosen, however many rows that is.
    """
    num_rows = np.bincount(user, minlength=num_users)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(num_rows))
    within = np.cumsum(num_rows[order]) <= max_rows
    within[:1] = True
    chosen = np.zeros(num_users, np.bool_)
    chosen[order[within]] = True
    return chosen


def runs(*keys: NDArray[np.int64]) -> Iterator[slice]:
    """The slices of rows in which every key, (rows,) and not negative, keeps its value."""
    changed = np.any([np.diff(key, prepend=-1) != 0 for key in keys], axis=0)
    starts = np.flatnonzero(changed)
    for first, end in zip(starts, np.append(starts[1:], len(changed)), strict=True):
        yield slice(int(first), int(end))
