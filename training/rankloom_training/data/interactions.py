"""The log as arrays: rows sorted by user and time, split into train, valid and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankloom_training.data.ordering import stable_order

VALID_FROM, TEST_FROM = 0.70, 0.85  # share of the log before each split, if none is given


class Split(IntEnum):
    """Which part of the log a row belongs to."""

    TRAIN = 0
    VALID = 1
    TEST = 2


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """The log, sorted by user and then by time. Arrays have one entry per row.

    Each user's rows are first training, then validation, then test rows.

    ``user``: codes from 0, without gaps. ``item``: index into the catalogue. ``time``:
    seconds. ``start``: (users,) each user's first row. ``user_ids``: the id of each code.
    ``sampled``: the dislikes are sampled negatives: they did not happen, so no row sees them.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    liked: NDArray[np.bool_]
    time: NDArray[np.float64]
    split: NDArray[np.int8]
    start: NDArray[np.int64]
    user_ids: tuple[str, ...]
    sampled: bool = False

    def __len__(self) -> int:
        return len(self.user)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def happened(self) -> NDArray[np.bool_]:
        """(rows,) False for sampled negatives."""
        return self.liked if self.sampled else np.ones(len(self), np.bool_)

    @property
    def num_training_users(self) -> int:
        return len(np.unique(self.user[self.split == Split.TRAIN]))

    def warm(self) -> NDArray[np.bool_]:
        """(rows,) whether user and item both have training rows."""
        train = self.happened & (self.split == Split.TRAIN)
        known_users, known_items = np.unique(self.user[train]), np.unique(self.item[train])
        return np.isin(self.user, known_users) & np.isin(self.item, known_items)


def make_log(
    users: Sequence[str],
    item: NDArray[np.int64],
    liked: NDArray[np.bool_],
    time: NDArray[np.float64],
    order: NDArray[np.float64],
    split: NDArray[np.int8] | None = None,
) -> Interactions:
    """Sorts rows by user, time and ``order``. Splits by time if ``split`` is None."""
    encoded = pa.array(users, pa.large_string()).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    split = split_by_time(time) if split is None else split
    ids = tuple(encoded.dictionary.to_pylist())
    return sorted_log(codes, ids, item, liked, time, order, split)


def sorted_log(
    user: NDArray[np.int64],
    user_ids: tuple[str, ...],
    item: NDArray[np.int64],
    liked: NDArray[np.bool_],
    time: NDArray[np.float64],
    order: NDArray[np.float64],
    split: NDArray[np.int8],
) -> Interactions:
    """Sorts rows by user, time and ``order``; rows that are equal in these keep their order."""
    by = stable_order(user, time, order)
    start = np.searchsorted(user[by], np.arange(len(user_ids))).astype(np.int64)
    return Interactions(user[by], item[by], liked[by], time[by], split[by], start, user_ids)


def split_by_time(time: NDArray[np.float64]) -> NDArray[np.int8]:
    """(rows,) the first 70 % are train, the last 15 % test; rows of one time stay together."""
    valid, test = np.quantile(time, [VALID_FROM, TEST_FROM]) if len(time) else (0.0, 0.0)
    return ((time >= valid).astype(np.int8) + (time >= test).astype(np.int8)).astype(np.int8)


def first_of_duplicates(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(rows,) False for each exact repeat of an earlier row. ``columns``: user and item first."""
    alike = _rows_alike(columns[:2])  # of most logs a few rows, and only these can be repeats
    by = alike[stable_order(*(column[alike] for column in columns))]
    keep = np.ones(len(columns[0]), dtype=np.bool_)
    keep[by[1:][_same_as_before(columns, by)]] = False
    return keep


def _rows_alike(columns: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
    """The rows that another row is equal to, in their order."""
    by = stable_order(*columns)
    same = _same_as_before(columns, by)
    alike = np.zeros(len(by), dtype=np.bool_)
    alike[by[1:][same]] = alike[by[:-1][same]] = True
    return np.flatnonzero(alike)


def _same_as_before(
    columns: Sequence[NDArray[np.generic]], by: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(len(by) − 1,) whether each row but the first is equal to the one before it."""
    same = np.ones(max(len(by) - 1, 0), dtype=np.bool_)
    for column in columns:
        ordered = column[by]
        same &= ordered[1:] == ordered[:-1]
    return same
