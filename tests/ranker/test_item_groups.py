"""A user is routed by their shares of the groups that items belong to."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_adapters.router import Route
from rankloom_features.events import History
from rankloom_features.histories import Histories
from rankloom_ranker.item_groups import (
    NO_GROUP,
    ItemGroups,
    ItemGroupsError,
    router_of_shares,
)

GROUPS = ItemGroups(np.array([0, 1, NO_GROUP, 1, 2]), 3)
ROUTER = router_of_shares(("films", "books", "games"))


def shares(*histories: list[int]) -> list[list[float]]:
    made = [
        History.untimed(np.array(each, np.int64), np.ones(len(each), np.bool_))
        for each in histories
    ]
    found: list[list[float]] = GROUPS.shares(Histories.of(made)).tolist()
    return found


def test_shares_are_of_the_events_that_have_a_group() -> None:
    assert shares([0, 1, 3, 1, 2]) == [[0.25, 0.75, 0.0]]
    assert shares([2, 2], [], [4]) == [[0.0] * 3, [0.0] * 3, [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(("events", "group"), [([0, 0], 0), ([1, 3, 3], 1), ([4], 2)])
def test_a_user_of_one_group_goes_to_its_expert(events: list[int], group: int) -> None:
    mixture = ROUTER.route(np.array(shares(events)[0]))
    assert mixture.route is Route.SINGLE
    assert mixture.weights.tolist() == [float(at == group) for at in range(4)]


@pytest.mark.parametrize(("num_films", "route"), [(3, Route.GLOBAL), (4, Route.SINGLE)])
def test_a_user_of_two_groups_has_the_global_expert_unless_nearly_all_events_are_of_one(
    num_films: int, route: Route
) -> None:
    mixture = ROUTER.route(np.array(shares([0] * num_films + [1])[0]))
    assert (mixture.route, mixture.cold_start) == (route, False)


@pytest.mark.parametrize("num", [2, 20])
def test_a_user_of_one_of_many_groups_has_its_expert(num: int) -> None:
    router = router_of_shares(tuple(map(str, range(num))))
    assert router.route(np.eye(num)[1]).route is Route.SINGLE


@pytest.mark.parametrize("events", [[], [2]])
def test_a_user_without_a_group_is_cold(events: list[int]) -> None:
    mixture = ROUTER.route(np.array(shares(events)[0]))
    assert (mixture.route, mixture.cold_start) == (Route.GLOBAL, True)


def test_a_new_group_leaves_the_routes_of_other_users() -> None:
    larger = router_of_shares((*ROUTER.groups, "songs"))
    for share in ([1.0, 0.0, 0.0], [0.9, 0.1, 0.0]):
        before, after = ROUTER.route(np.array(share)), larger.route(np.array([*share, 0.0]))
        assert before.route is after.route
        assert np.delete(after.weights, 3).tolist() == pytest.approx(
            before.weights.tolist(), abs=1e-3
        )


def test_what_is_written_reads_back() -> None:
    found = ItemGroups.from_bytes(GROUPS.to_bytes(), 5, 3)
    assert (found.group.tolist(), found.num_groups) == (GROUPS.group.tolist(), 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[0, 1", "unreadable"),
        (b"[[0], [0, 1]]", "unreadable"),
        (b'{"a": 1}', "another catalogue"),
        (b"[0, 1]", "another catalogue"),
        (b'["a", "b", "c", "d", "e"]', "another catalogue"),
        (b"[0.5, 0, 0, 0, 0]", "another catalogue"),
        (b"[0, 1, 2, 3, 0]", "another router"),
        (b"[0, 1, 2, -2, 0]", "another router"),
    ],
)
def test_damaged_groups_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(ItemGroupsError, match=said):
        ItemGroups.from_bytes(data, 5, 3)
