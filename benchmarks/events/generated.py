"""A generated store: users with few events and with many, items by popularity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.timing import progress
from rankloom_features.event_store.bulk import EventColumns
from rankloom_features.event_store.keys import KEY_BYTES, NUM_PARTITIONS, partition_of
from rankloom_features.event_store.sqlite import SqliteEventStore

NUM_ITEMS = 50_000
SPREAD = (
    1.0  # of the logarithm of a user's number of events: one in a hundred has ten times the median
)
START_S = 1_700_000_000
ITEM_IDS = [f"item-{number}" for number in range(NUM_ITEMS)]


def user_id(number: int) -> str:
    return f"user-{number}"


def generate(
    path: Path, num_users: int, num_events: int, item_ids: Sequence[str] = ITEM_IDS
) -> None:
    """Writes a store of about so many events, partition by partition, as an import does."""
    of_user = np.array([partition_of(user_id(number)) for number in range(num_users)])
    dice, items, store = np.random.default_rng(0), dict[str, int](), SqliteEventStore(path)
    for partition in range(NUM_PARTITIONS):
        users = np.flatnonzero(of_user == partition)
        if len(users):
            mean = num_events / num_users
            columns = _columns(dice, users, mean, item_ids)
            store.store_columns(partition, columns, items)
        if partition % 32 == 31:
            progress(f"{partition + 1} of {NUM_PARTITIONS} partitions written")
    store.close()


def _columns(
    dice: np.random.Generator, users: NDArray[np.int64], mean: float, item_ids: Sequence[str]
) -> EventColumns:
    """Events of these users; ``mean``: events per user."""
    middle = np.log(mean) - SPREAD**2 / 2
    counts = np.maximum(dice.lognormal(middle, SPREAD, len(users)).round().astype(np.int64), 1)
    number = int(counts.sum())
    item = np.minimum(dice.pareto(0.8, number) * 20, len(item_ids) - 1).astype(np.int64)
    keys = os.urandom(KEY_BYTES * number)
    return EventColumns(
        user_ids=[user_id(user) for user in users.tolist()],
        user=np.repeat(np.arange(len(users)), counts),
        item_ids=item_ids,
        item=item,
        liked=dice.random(number) < 0.5,
        time=START_S + dice.integers(0, 10**7, number).astype(np.float64),
        keys=[keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES)],
    )
