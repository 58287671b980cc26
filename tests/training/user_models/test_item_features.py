"""Item features: products of rows are the kernels that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.item_columns import NO_COLUMNS, ItemColumns
from rankloom_features.item_statistics import ItemStatistics
from rankloom_training.data import Dataset
from rankloom_training.user_models.item_features import (
    NUM_VECTOR_FACTORS,
    YEAR_SCALE,
    ItemFeatures,
    strongest,
)
from rankloom_training.user_models.labels import Labels
from training.logs import random_log

ITEMS = (
    Item("a", "A", 1980, ("War", "Drama")),
    Item("b", "B", 1990, ("War",)),
    Item("c", "C", None, ()),
)


def statistics(rank: int = 2) -> ItemStatistics:
    factors = np.arange(len(ITEMS) * rank, dtype=np.float32).reshape(len(ITEMS), rank)
    counts = np.ones(len(ITEMS), np.float32)
    return ItemStatistics(counts, counts, factors, np.zeros_like(factors))


def labels() -> Labels:
    """Two users rated the first two items; nobody rated the third."""
    user, item = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    return Labels(user, item, np.array([True, False, False, True]))


def features(
    columns: ItemColumns = NO_COLUMNS, vectors: NDArray[np.float32] | None = None
) -> ItemFeatures:
    log = random_log(0, num_users=2, num_items=len(ITEMS)).log
    data = Dataset(Catalogue(ITEMS), log, item_columns=columns, item_vectors=vectors)
    return ItemFeatures.of(data, statistics(), labels())


def products(block: int, columns: ItemColumns = NO_COLUMNS) -> list[list[float]]:
    rows = features(columns).blocks[block]
    found: list[list[float]] = (rows @ rows.T).tolist()
    return found


def test_attributes_that_items_share() -> None:
    shared = 1 / np.sqrt(2)
    expected = [[1, shared, 0], [shared, 1, 0], [0, 0, 0]]
    assert products(0) == [pytest.approx(row) for row in expected]


def test_years_are_close_or_far_and_an_unknown_one_is_neither() -> None:
    near = np.exp(-((10 / YEAR_SCALE) ** 2))
    assert products(1) == [pytest.approx(row) for row in ([1, near, 0], [near, 1, 0], [0, 0, 0])]


def test_items_that_go_together_count_by_direction_alone() -> None:
    lengths = np.linalg.norm(features().blocks[5], axis=1)
    assert lengths.tolist() == pytest.approx([1, 1, 1])


def test_items_that_the_same_users_rated_are_alike_whatever_they_said() -> None:
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert products(4) == [pytest.approx(row, abs=1e-9) for row in expected]


def test_item_columns_are_standardised_and_unknown_values_are_average() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]], np.float32)
    block = features(ItemColumns(("votes", "same"), values)).blocks[2]
    assert block[:, 0].tolist() == pytest.approx([-1 / np.sqrt(2), 1 / np.sqrt(2), 0])
    assert not block[:, 1].any()


def test_item_vectors_are_alike_by_direction_from_their_mean() -> None:
    """The third item has none, so that it is like no other."""
    vectors = np.array([[9.0, 1.0, 2.0], [9.0, 3.0, 2.0], [0.0, 0.0, 0.0]], np.float32)
    block = features(vectors=vectors).blocks[3]
    expected = [[1, -1, 0], [-1, 1, 0], [0, 0, 0]]
    assert (block @ block.T).tolist() == [pytest.approx(row, abs=1e-9) for row in expected]


def test_of_long_item_vectors_the_strongest_factors_are_kept() -> None:
    vectors = np.random.default_rng(0).normal(size=(len(ITEMS), 500)).astype(np.float32)
    assert features(vectors=vectors).blocks[3].shape[1] <= NUM_VECTOR_FACTORS
    assert features().blocks[3].shape == (len(ITEMS), 0)


def test_a_kernel_is_the_sum_of_its_blocks() -> None:
    found = features()
    variances = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    weighted = found.weighted(variances)
    expected = sum(v * b @ b.T for v, b in zip(variances, found.blocks, strict=True))
    np.testing.assert_allclose(weighted @ weighted.T, expected, atol=1e-12)
    assert len(found.block_of) == weighted.shape[1]


@pytest.mark.parametrize("rank", [2, 9])
def test_the_strongest_directions_come_nearest(rank: int) -> None:
    """The best approximation of rank k of a matrix is its singular value decomposition's."""
    matrix = np.random.default_rng(0).normal(size=(20, 5))
    found = strongest(matrix, rank)
    left, strength, _ = np.linalg.svd(matrix, full_matrices=False)
    best = left[:, :rank] * strength[:rank]
    assert found.shape == (20, min(rank, 5))
    np.testing.assert_allclose(found @ found.T, best @ best.T, atol=1e-10)
