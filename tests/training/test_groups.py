from __future__ import annotations

import numpy as np
import pytest

from rankloom_adapters.router import GLOBAL, Route, group_of
from rankloom_training.group_counts import GroupError, check_groups
from rankloom_training.groups import fit_router

DIM = 6


def clusters(sizes: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users in distant clusters, all shifted by one large vector."""
    random = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(sizes)), sizes)
    vectors = 3.0 * np.eye(DIM)[own] + 0.1 * random.normal(size=(len(own), DIM)) + 10.0
    order = random.permutation(len(own))
    return vectors[order].astype(np.float32), own[order]


@pytest.mark.parametrize("sizes", [(30, 30), (80, 20), (30, 30, 30)])
def test_clear_clusters_are_found_and_route_to_themselves(sizes: tuple[int, ...]) -> None:
    vectors, own = clusters(sizes)
    router = fit_router(vectors, len(sizes), 0)
    assert router.experts == (*(f"group-{n}" for n in range(len(sizes))), GLOBAL)
    found = group_of(vectors, router.centre, router.centroids)
    assert len(set(zip(own.tolist(), found.tolist(), strict=True))) == len(sizes)
    for vector, group in zip(vectors, found, strict=True):
        mixture = router.route(vector)
        assert mixture.route is Route.SINGLE
        assert mixture.weights.argmax() == group
    for index, centroid in enumerate(router.centroids):
        assert centroid == pytest.approx(vectors[found == index].mean(axis=0), rel=1e-6)
    assert router.centre == pytest.approx(vectors.mean(axis=0), rel=1e-6)


def test_the_same_seed_gives_the_same_router() -> None:
    vectors, _ = clusters((20, 20, 20))
    assert fit_router(vectors, 3, 1).to_bytes() == fit_router(vectors, 3, 1).to_bytes()


def test_users_without_a_vector_are_left_out() -> None:
    vectors, _ = clusters((20, 20))
    with_zeros = np.concatenate([vectors, np.zeros((50, DIM), np.float32)])
    assert fit_router(with_zeros, 2, 0).to_bytes() == fit_router(vectors, 2, 0).to_bytes()


def test_too_few_users_are_refused() -> None:
    vectors, _ = clusters((2, 1))
    with pytest.raises(GroupError, match="3 users"):
        fit_router(vectors, 4, 0)
    with pytest.raises(GroupError, match="0 users"):
        fit_router(np.zeros((9, DIM), np.float32), 2, 0)


def test_a_very_small_group_is_refused() -> None:
    vectors, _ = clusters((200, 200, 1))
    with pytest.raises(GroupError, match="fewer groups"):
        fit_router(vectors, 3, 0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_identical_users_are_refused() -> None:
    with pytest.raises(GroupError):
        fit_router(np.ones((30, DIM), np.float32), 3, 0)


@pytest.mark.parametrize(("num", "users"), [(2, 2), (50, 50), (2, 9999)])
def test_as_many_groups_as_users_may_be_asked_for(num: int, users: int) -> None:
    check_groups(num, users)


@pytest.mark.parametrize(("num", "users"), [(1, 9), (51, 9999), (3, 2), (2, 0)])
def test_impossible_numbers_of_groups_are_refused_early(num: int, users: int) -> None:
    with pytest.raises(GroupError):
        check_groups(num, users)


@pytest.mark.parametrize("num", [1, 0, -1])
def test_fewer_than_two_groups_are_refused(num: int) -> None:
    with pytest.raises(GroupError):
        fit_router(clusters((9, 9))[0], num, 0)
