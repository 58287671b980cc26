"""Silhouette and Cohen's d, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_training.grouping.measures import cohens_d, separation, silhouettes


def test_cohens_d_is_the_difference_in_pooled_deviations() -> None:
    random = np.random.default_rng(0)
    own, others = random.normal(1.0, 2.0, (40, 3)), random.normal(0.0, 3.0, (90, 3))
    for column, found in enumerate(cohens_d(own, others)):
        a, b = own[:, column], others[:, column]
        pooled = np.sqrt((39 * a.var(ddof=1) + 89 * b.var(ddof=1)) / 128)
        assert found == pytest.approx((a.mean() - b.mean()) / pooled)


def test_unknown_values_are_left_out_of_cohens_d() -> None:
    own = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0]])
    others = np.array([[0.0, 1.0], [2.0, 2.0], [np.nan, np.nan]])
    found = cohens_d(own, others)
    assert found[0] == pytest.approx(1.0 / np.sqrt(2.0))
    assert np.isnan(found[1])  # one known value has no deviation


def test_a_column_that_never_varies_has_no_d() -> None:
    assert np.isnan(cohens_d(np.ones((5, 1)), np.zeros((5, 1))))[0]


def circle(angles: list[float]) -> np.ndarray:
    return np.column_stack([np.cos(angles), np.sin(angles)])


def test_silhouettes_use_the_cosine_distance() -> None:
    directions, group = circle([0.0, 0.3, 2.0, 2.2]), np.array([0, 0, 1, 1])
    distance = 1.0 - directions @ directions.T
    for user, found in enumerate(silhouettes(directions, group)):
        own = distance[user, (group == group[user]) & (np.arange(4) != user)].mean()
        other = distance[user, group != group[user]].mean()
        assert found == pytest.approx((other - own) / max(own, other))


def test_one_group_has_no_silhouette() -> None:
    assert np.isnan(silhouettes(circle([0.0, 1.0]), np.zeros(2, np.int64))).all()


def test_separation_is_that_from_the_nearest_other_group() -> None:
    random = np.random.default_rng(1)
    at = np.repeat([0.0, 0.6, 3.0], 50) + 0.1 * random.normal(size=150)
    directions, group = circle(at.tolist()), np.repeat([0, 1, 2], 50)
    centroids = np.stack([directions[group == index].mean(axis=0) for index in range(3)])
    first, second, third = separation(directions, group, centroids)
    assert first == pytest.approx(second)
    assert 2.0 < first < third


def test_an_empty_group_has_no_separation() -> None:
    found = separation(circle([0.0, 0.1, 1.0, 1.1]), np.array([0, 0, 1, 1]), circle([0, 1, 2]))
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2])
