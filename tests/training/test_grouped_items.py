"""Values of a category of the item table become groups."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_features.item_columns import ItemColumns
from rankloom_ranker.item_groups import NO_GROUP
from rankloom_training.group_counts import GroupError
from rankloom_training.grouped_items import check_shares, grouped_items, names_of_groups

NAN = np.nan


def columns(**flags: list[float]) -> ItemColumns:
    names = [name.replace("__", "=") for name in flags]
    return ItemColumns(tuple(names), np.array(list(flags.values()), np.float32).T.copy())


def test_each_value_is_a_group() -> None:
    given = columns(price=[9, 3, 1, 2], kind__films=[0, 1, 0, NAN], kind__books=[1, 0, 0, NAN])
    assert names_of_groups(given, "kind") == ("books", "films")
    groups = grouped_items(given, "kind")
    assert groups.group.tolist() == [0, 1, NO_GROUP, NO_GROUP]
    assert groups.num_groups == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (columns(price=[9.0, 3.0]), "no category kind to group by; it has none"),
        (columns(form__long=[1.0], form__short=[0.0]), "it has form, and columns.json can"),
        (columns(kind__films=[1.0, 1.0]), "kind has one value only"),
        (columns(**{"kind__a/b": [1.0], "kind__c": [0.0]}), "'a/b' cannot name a group"),
        (columns(kind__global=[1.0], kind__c=[0.0]), "'global' cannot name a group"),
    ],
)
def test_what_cannot_be_groups_is_refused(given: ItemColumns, said: str) -> None:
    with pytest.raises(GroupError, match=said):
        names_of_groups(given, "kind")


def test_a_group_of_few_users_is_refused() -> None:
    shares = np.array([[1.0, 0.0]] * 99 + [[0.4, 0.6]] + [[0.0, 0.0]] * 50)
    with pytest.raises(GroupError, match="books has only 1 of 100 training users"):
        check_shares(shares, ("films", "books"))
    check_shares(shares[-60:], ("films", "books"))
