"""The number of groups is chosen by what linear heads of groups gain on validation rows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rankloom_training.group_counts import Clustering, GroupError
from rankloom_training.grouping.choice import RankedRows, choose_router, standardised
from rankloom_training.groups import fit_router

DIM, NUM_USERS, NUM_ITEMS, ROWS_EACH = 8, 120, 50, 30
Vectors = NDArray[np.float32]


def users_of(num: int, random: np.random.Generator) -> tuple[Vectors, NDArray[np.int64]]:
    """Users around ``num`` directions, and the direction of each."""
    own = np.arange(NUM_USERS) % num
    vectors = 3.0 * np.eye(DIM)[own] + 0.3 * random.normal(size=(NUM_USERS, DIM))
    return vectors.astype(np.float32), own


def log_of(num: int, strength: float) -> tuple[Vectors, RankedRows, RankedRows]:
    """``num`` groups like items of their own; ``strength`` 0: all like the same."""
    random = np.random.default_rng(5)
    vectors, own = users_of(num, random)
    items = random.normal(size=(NUM_ITEMS, DIM))
    taste = strength * items[:, :num].T + items[:, DIM - 1]

    def rows() -> RankedRows:
        user = np.repeat(np.arange(NUM_USERS), ROWS_EACH)
        item = random.integers(0, NUM_ITEMS, len(user))
        p = 1.0 / (1.0 + np.exp(-taste[own[user], item]))
        return RankedRows(
            user=user,
            vector=vectors[user],
            item=standardised([items])[item],
            logit=items[item, DIM - 1],
            liked=random.random(len(user)) < p,
        )

    return vectors, rows(), rows()


@pytest.mark.parametrize("clustering", Clustering)
@pytest.mark.parametrize("num", [2, 4])
def test_groups_of_different_taste_are_counted(num: int, clustering: Clustering) -> None:
    found = choose_router(*log_of(num, 2.0), 0, clustering)
    assert len(found.router.groups) == num
    assert found.gains[num].value > 3.0 * found.gains[num].error


def test_without_different_tastes_the_fewest_groups_are_taken() -> None:
    found = choose_router(*log_of(4, 0.0), 0, Clustering.KMEANS)
    assert len(found.router.groups) == 2
    assert found.gains[2].value < 2.0 * found.gains[2].error


def test_the_choice_can_be_repeated() -> None:
    one, two = (choose_router(*log_of(2, 1.0), 0, Clustering.KMEANS) for _ in range(2))
    assert one.router.to_bytes() == two.router.to_bytes()


def test_too_few_users_are_refused() -> None:
    vectors, train, valid = log_of(2, 1.0)
    with pytest.raises(GroupError):
        choose_router(vectors[:1], train, valid, 0, Clustering.KMEANS)


def test_ward_finds_clear_clusters_and_draws_from_many_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, own = users_of(3, np.random.default_rng(0))
    whole = fit_router(vectors, 3, 0, Clustering.WARD)
    monkeypatch.setattr("rankloom_training.groups.MAX_WARD_USERS", 60)
    some = fit_router(vectors, 3, 0, Clustering.WARD)
    for router in (whole, some):
        nearest = [router.largest(vector) for vector in vectors]
        assert len(set(zip(own.tolist(), nearest, strict=True))) == 3
    assert whole.to_bytes() != some.to_bytes()
