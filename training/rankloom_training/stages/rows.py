"""The rows that stages train and validate on, and which events each row may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.fit import ROUND_ROWS, Examples, num_rounds
from rankloom_features.histories import Histories
from rankloom_training.data import Dataset, Interactions, Split
from rankloom_training.data.report import Line
from rankloom_training.visibility import (
    TABLE_ROWS,
    VALID_SHARE,
    Protocol,
    View,
    sampled_users,
    sessions,
    training_views,
    validation_view,
)


@dataclass(frozen=True, slots=True, eq=False)
class LogRows:
    """Views of the training and of the validation rows of a log.

    Of a large log, they are all rows of some users: at most TABLE_ROWS to train on, and
    TABLE_ROWS / VALID_SHARE to validate on. ``every_of`` has all rows.
    """

    dataset: Dataset
    train: tuple[View, ...]
    valid: View
    seed: int

    @classmethod
    def of(cls, dataset: Dataset, protocol: Protocol, seed: int) -> LogRows:
        every = cls.every_of(dataset, protocol, seed)
        train = tuple(every._of_some(view, Split.TRAIN) for view in every.train)
        return cls(dataset, train, every._of_some(every.valid, Split.VALID), seed)

    @classmethod
    def every_of(cls, dataset: Dataset, protocol: Protocol, seed: int) -> LogRows:
        """All rows, however many."""
        valid = validation_view(dataset.log, protocol, seed)
        return cls(dataset, training_views(dataset.log, protocol, seed), valid, seed)

    def as_they_come(self) -> LogRows:
        """The same rows, each of which sees all events before it that its protocol allows."""
        train = tuple(view.as_they_come() for view in self.train)
        return LogRows(self.dataset, train, self.valid.as_they_come(), self.seed)

    @property
    def log(self) -> Interactions:
        return self.dataset.log

    def views(self, split: Split) -> tuple[View, ...]:
        """Of train or valid. Arrays of these rows are in the order of the views."""
        return self.train if split is Split.TRAIN else (self.valid,)

    def indices(self, split: Split) -> NDArray[np.int64]:
        """(rows,) index into the log of each row of the views."""
        return np.concatenate([view.rows for view in self.views(split)])

    def sampling_offset(self, split: Split) -> NDArray[np.float64]:
        """(rows,) what the sampling of negatives adds to the log-odds of a like."""
        return self.dataset.sampling_offset(self.indices(split))

    def weight(self, split: Split) -> NDArray[np.float64] | None:
        """(rows,) how much each row counts for the trees; None: all alike.

        Of likes alone, a session of n rows counts √n times as much as one of a single row: what
        users do when they come back is a small part of the rows, and all of some lists.
        """
        if not self.log.sampled:
            return None
        session = sessions(self.log)
        weight = 1.0 / np.sqrt(np.bincount(session)[session[self.indices(split)]])
        return np.asarray(weight / weight.mean())

    def examples(self, split: Split, epoch: int = 0) -> Examples:
        """The rows as the collaborative model sees them, sampled negatives as in ``epoch``."""
        log, negatives = self.log, self.dataset.negatives
        items = negatives.items(log, epoch) if negatives else log.item
        parts = [
            Examples(view.histories(log), items[view.rows] + 1, log.liked[view.rows])
            for view in self.views(split)
        ]
        return Examples.joined(parts)

    def histories(self, split: Split) -> Histories:
        """What each of the rows may see."""
        return Histories.joined([view.histories(self.log) for view in self.views(split)])

    def for_language_model(self, split: Split, max_rows: int) -> NDArray[np.bool_]:
        """(users,) the users whose rows the language model sees; ``max_rows``: of training rows."""
        share = 1 if split is Split.TRAIN else VALID_SHARE
        return chosen_users(self.log, self.indices(split), max_rows // share, self.seed)

    def newest_of_users(self) -> NDArray[np.int64]:
        """(users,) for each training user, which training row of the views knows most of them."""
        best_first = self._longest_history_first()
        users = self.log.user[self.indices(Split.TRAIN)[best_first]]
        return np.asarray(best_first[np.unique(users, return_index=True)[1]])

    def _longest_history_first(self) -> NDArray[np.int64]:
        """Indices of all training rows; of histories of one length those of the first view come
        first, and the newest of a view.
        """
        sizes = [len(view.rows) for view in self.train]
        indices = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        newest_first = np.concatenate([each[::-1] for each in indices])
        histories = self.histories(Split.TRAIN)
        length = (histories.end - histories.first)[newest_first]
        return newest_first[np.argsort(-length, kind="stable")]

    def _of_some(self, view: View, split: Split) -> View:
        """The view's rows of the users who have features."""
        users = self.for_language_model(split, TABLE_ROWS)
        return view.only(users[self.log.user[view.rows]])


def limits_of(log: Interactions) -> Iterator[Line]:
    """What stages do not do with every row of a large log, in words; nothing for a usual one."""
    num_train = int((log.split == Split.TRAIN).sum())
    if num_rounds(num_train) > 1:
        yield "rounds", f"early stopping of the collaborative model looks every {ROUND_ROWS:,} rows"
    if num_train > TABLE_ROWS:
        yield "features", f"of {TABLE_ROWS:,} training rows at most: all rows of some users"


def chosen_users(
    log: Interactions, rows: NDArray[np.int64], max_rows: int, seed: int
) -> NDArray[np.bool_]:
    """(users,) users who have at most ``max_rows`` of these rows of the log."""
    return sampled_users(log.user[rows], log.num_users, max_rows, seed)
