"""A small catalogue, statistics over it, and random histories."""

from __future__ import annotations

import numpy as np

from rankloom_features.catalogue import Catalogue, Item, ItemTraits
from rankloom_features.events import History
from rankloom_features.item_statistics import ItemStatistics

NUM_ITEMS, RANK = 12, 3
GENRES = ("Comedy", "Drama", "War")
CATALOGUE = Catalogue(
    Item(
        f"i{index}",
        f"Title {index}",
        None if index == 5 else 1960 + 3 * index,
        GENRES[index % 4 : index % 4 + 2],
    )
    for index in range(NUM_ITEMS)
)


def random_statistics(seed: int = 0) -> ItemStatistics:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 30, NUM_ITEMS).astype(np.float32)
    likes = np.floor(rows * random.random(NUM_ITEMS)).astype(np.float32)
    co_liking, co_rating = random.normal(size=(2, NUM_ITEMS, RANK)).astype(np.float32)
    return ItemStatistics(rows, likes, co_liking, co_rating)


def history(*events: tuple[int, bool]) -> History:
    return History.untimed(
        np.array([index for index, _ in events], dtype=np.int64),
        np.array([liked for _, liked in events], dtype=np.bool_),
    )


def random_history(random: np.random.Generator, length: int) -> History:
    time = np.cumsum(random.exponential(3_600.0, length))
    return History(random.integers(0, NUM_ITEMS, length), random.random(length) < 0.5, time)


def traits(*indices: int) -> ItemTraits:
    return CATALOGUE.traits_at(np.array(indices, dtype=np.int64))
