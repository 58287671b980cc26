"""Diversity is maximal marginal relevance, from the ranking's own order to nothing alike."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_ranker.diversity import most_marginal, scaled

RELEVANCE = np.array([1.0, 0.9, 0.8, 0.1])
VECTORS = np.array([[1.0, 0.0], [2.0, 0.01], [0.0, 3.0], [-1.0, 0.0]])


@pytest.mark.parametrize(
    ("diversity", "chosen"),
    [(0.0, [0, 1, 2]), (0.4, [0, 2, 1]), (1.0, [0, 3, 2])],
)
def test_the_more_diversity_the_less_alike(diversity: float, chosen: list[int]) -> None:
    assert most_marginal(RELEVANCE, VECTORS, 3, diversity).tolist() == chosen


def test_it_is_the_formula() -> None:
    random = np.random.default_rng(0)
    relevance, vectors, weight = random.random(20), random.normal(size=(20, 5)), 0.7
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen: list[int] = []
    while len(chosen) < 8:
        gains = {
            i: weight * relevance[i]
            - (1 - weight) * max((units[i] @ units[j] for j in chosen), default=0.0)
            for i in range(20)
            if i not in chosen
        }
        chosen.append(max(gains, key=lambda i: gains[i]))
    assert most_marginal(relevance, vectors, 8, 1 - weight).tolist() == chosen


def test_all_are_chosen_where_fewer_are_there_and_zero_vectors_resemble_nothing() -> None:
    assert sorted(most_marginal(RELEVANCE, np.zeros((4, 2)), 9, 0.5).tolist()) == [0, 1, 2, 3]


def test_relevance_goes_from_0_to_1_over_the_scored() -> None:
    scores, scored = np.array([3.0, 1.0, -5.0]), np.array([True, True, False])
    assert scaled(scores, scored).tolist() == [1.0, 0.0, 0.0]
    assert scaled(scores, np.zeros(3, np.bool_)).tolist() == [1.0, 0.75, 0.0]
    assert scaled(np.ones(2), np.ones(2, np.bool_)).tolist() == [0.0, 0.0]
