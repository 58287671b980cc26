"""The events of a store and the rows of a newer log, as one log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue
from rankloom_features.event_store.keys import NUM_PARTITIONS
from rankloom_features.event_store.sqlite import SqliteEventStore
from rankloom_training.data import Interactions, Split
from rankloom_training.data.checks import refuse_backwards
from rankloom_training.data.interactions import first_of_duplicates, sorted_log


@dataclass(frozen=True, slots=True, eq=False)
class StoredEvents:
    """The events of a store about known items, as columns of one entry an event.

    ``user``: indices into ``user_ids``. ``item``: catalogue indices. ``time``: seconds.
    """

    user_ids: tuple[str, ...]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    liked: NDArray[np.bool_]
    time: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(cls, store: SqliteEventStore, catalogue: Catalogue) -> StoredEvents:
        """All events but those of items that the catalogue lacks. Raises EventStoreError."""
        partitions = [_read(store, number, catalogue) for number in range(NUM_PARTITIONS)]
        first_user = np.cumsum([0, *(len(each.user_ids) for each in partitions[:-1])])
        numbered = zip(partitions, first_user, strict=True)
        return cls(
            tuple(user for each in partitions for user in each.user_ids),
            np.concatenate([each.user + first for each, first in numbered]),
            np.concatenate([each.item for each in partitions]),
            np.concatenate([each.liked for each in partitions]),
            np.concatenate([each.time for each in partitions]),
        )

    def only(self, chosen: NDArray[np.bool_]) -> StoredEvents:
        """The events of a mask. All users stay."""
        return StoredEvents(
            self.user_ids,
            self.user[chosen],
            self.item[chosen],
            self.liked[chosen],
            self.time[chosen],
        )


def joined_log(stored: StoredEvents, new: Interactions, name: str) -> Interactions:
    """Both logs as one; what is in both counts once.

    Stored events belong to the split that ``new`` has at their time, so that none before its
    validation rows is held back. ``name``: of the new log, for the refusal. Raises DataError where
    the new log's splits contradict the order of time.
    """
    user_ids, own = _numbered(stored.user_ids, new.user_ids)
    user = np.concatenate([own[new.user], stored.user])
    item = np.concatenate([new.item, stored.item])
    liked = np.concatenate([new.liked, stored.liked])
    time = np.concatenate([new.time, stored.time])
    split = np.concatenate([new.split, _splits_at(stored.time, new)])
    keep = first_of_duplicates(user, item, time, liked)
    log = sorted_log(
        user[keep], user_ids, item[keep], liked[keep], time[keep], time[keep], split[keep]
    )
    refuse_backwards(name, log)
    return log


def _read(store: SqliteEventStore, partition: int, catalogue: Catalogue) -> StoredEvents:
    users, items, liked, times, _ = store.read_columns(partition)
    user_ids, user = _encoded(users)
    item_ids, item = _encoded(items)
    index = np.array([catalogue.index(item_id) for item_id in item_ids], dtype=np.int64)[item]
    found = StoredEvents(
        user_ids, user, index, np.array(liked, np.bool_), np.array(times, np.float64)
    )
    return found.only(index >= 0)


def _encoded(values: Sequence[object]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The distinct ids, and which of them each value is."""
    encoded = pa.array(values, pa.string()).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return tuple(encoded.dictionary.to_pylist()), codes


def _numbered(
    known: tuple[str, ...], others: tuple[str, ...]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """All users, the known ones first; and which of them each of the others is."""
    code = {user: index for index, user in enumerate(dict.fromkeys((*known, *others)))}
    return tuple(code), np.array([code[user] for user in others], dtype=np.int64)


def _splits_at(time: NDArray[np.float64], new: Interactions) -> NDArray[np.int8]:
    """(n,) the split that the new log has at these times."""
    starts = [new.time[new.split == split].min() for split in (Split.VALID, Split.TEST)]
    return np.searchsorted(np.maximum.accumulate(starts), time, side="right").astype(np.int8)
