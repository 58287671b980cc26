"""Routers are chosen by how they rank validation rows; equals are decided for ThinkRec's."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Route, Router
from rankloom_training.grouping.routing import FUSE_ALL, ValidRows, candidates, choose
from rankloom_training.metrics import balance, balance_difference

NUM_USERS, ROWS_EACH = 60, 12


def rows(seed: int = 0) -> ValidRows:
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(NUM_USERS), ROWS_EACH)
    return ValidRows(user, random.random(len(user)) < 0.5, user)


def scores(given: ValidRows, signal: float, seed: int = 1) -> NDArray[np.float64]:
    """The same noise with more or less of the truth."""
    noise = np.random.default_rng(seed).normal(size=len(given.label))
    return signal * given.label + noise


def routes(fused: float) -> list[Route]:
    num = round(fused * NUM_USERS)
    return [Route.FUSED] * num + [Route.SINGLE] * (NUM_USERS - num)


def test_the_better_ranking_wins_whatever_its_route() -> None:
    given = rows()
    few, many = routes(0.1), routes(0.9)
    found = choose(given, [scores(given, 0.5), scores(given, 1.0)], [many, few])
    assert found.index == 1
    assert found.over_paper.low > 0.0
    assert found.shares[Route.FUSED] == 0.1
    assert choose(given, [scores(given, 1.0), scores(given, 0.5)], [few, many]).index == 0


def test_where_no_ranking_is_better_beyond_noise_the_first_router_stays() -> None:
    given = rows()
    first = scores(given, 1.0)
    others = [first + 1e-9, first + np.random.default_rng(2).normal(0.0, 0.05, len(first))]
    found = choose(given, [first, *others], [routes(0.1), routes(0.8), routes(0.5)])
    assert found.index == 0
    assert (found.over_paper.value, found.shares[Route.FUSED]) == (0.0, 0.1)
    assert sum(found.shares.values()) == 1.0


def test_rows_of_one_class_leave_the_first_router() -> None:
    given = rows()
    one_class = ValidRows(given.user, np.ones_like(given.label), given.request)
    better = scores(given, 1.0)
    found = choose(one_class, [better, 2.0 * better], [routes(0.2), routes(0.9)])
    assert (found.index, found.over_paper.value) == (0, 0.0)


def test_of_routers_that_are_as_good_as_the_best_the_first_is_taken() -> None:
    given = rows()
    good = scores(given, 1.0)
    best = good + np.random.default_rng(3).normal(0.0, 0.02, len(good)) + 0.02 * given.label
    assert balance(given.user, given.label, best) > balance(given.user, given.label, good)
    some = [routes(share) for share in (0.2, 0.0, 0.9)]
    found = choose(given, [scores(given, 0.3), good - 1e-12, best], some)
    above = balance_difference(given.user, given.label, best, good)
    assert found.index == (2 if above.value >= above.standard_error else 1)
    found = choose(given, [scores(given, 0.3), good, good + 1.0], some)
    assert (found.index, found.shares[Route.FUSED]) == (1, 0.0)
    assert found.over_paper.low > 0.0
    assert choose(given, [scores(given, 0.3), good, scores(given, 3.0)], some).index == 2


def test_the_paper_comes_first_then_no_groups_and_the_others_fuse_more() -> None:
    router = Router(("a", "b", "c"), np.zeros(4), np.eye(3, 4))
    fitted = dataclasses.replace(router, temperature=1.0, fitted_thresholds=FUSE_ALL)
    assert [each.to_bytes() for each in candidates(fitted)] == [
        each.to_bytes() for each in candidates(router)
    ]
    first, none, *others = candidates(fitted)
    assert first.to_bytes() == router.to_bytes()
    vector = np.array([0.9, 0.6, 0.0, 0.3])
    assert router.route(vector).route is Route.SINGLE
    assert none.route(vector).route is Route.GLOBAL
    assert none.route(np.eye(4)[0]).route is Route.GLOBAL
    assert {each.route(vector).route for each in others} >= {Route.FUSED, Route.GLOBAL}
    for each in others:
        fuses = each.thresholds == FUSE_ALL
        assert not fuses or each.route(vector).route is Route.FUSED


def test_the_balance_is_the_mean_of_both_metrics_and_its_difference_is_paired() -> None:
    given = rows()
    one, other = scores(given, 1.0), scores(given, 0.5)
    paired = balance_difference(given.user, given.label, one, other)
    expected = balance(given.user, given.label, one) - balance(given.user, given.label, other)
    assert abs(paired.value - expected) < 1e-12
    assert paired.low < paired.value < paired.high
    assert balance_difference(given.user, given.label, one, one).high == 0.0
