"""Groups by a category of the item table, such as a domain, a market or a language."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import GLOBAL
from rankloom_features.item_columns import ItemColumns
from rankloom_ranker.item_groups import NO_GROUP, ItemGroups
from rankloom_training.group_counts import MIN_GROUP_SHARE, MIN_GROUPS, GroupError

_NAME = re.compile(r"[\w-]{1,64}")


def names_of_groups(columns: ItemColumns, category: str) -> tuple[str, ...]:
    """The values of a category that become groups, sorted. Raises GroupError."""
    names = sorted(_flags_of(columns, category))
    if not names:
        known = sorted({name.partition("=")[0] for name in columns.names if "=" in name})
        raise GroupError(
            f"the item table has no category {category} to group by; "
            f"it has {', '.join(known) or 'none'}, and columns.json can declare others"
        )
    if len(names) < MIN_GROUPS:
        raise GroupError(f"{category} has one value only; group by a category with more values")
    for name in names:
        check_group_name(name)
    return tuple(names)


def check_group_name(name: str) -> None:
    """Raises GroupError for a name that no expert can have."""
    if not _NAME.fullmatch(name) or name == GLOBAL:
        raise GroupError(
            f"{name[:64]!r} cannot name a group; use up to 64 letters, digits, - and _, "
            f"and another name than {GLOBAL}"
        )


def grouped_items(columns: ItemColumns, category: str) -> ItemGroups:
    """The group of each item; an item without a frequent value has none. Raises GroupError."""
    names, flags = names_of_groups(columns, category), _flags_of(columns, category)
    member = np.stack([flags[name] == 1.0 for name in names], axis=1)
    return ItemGroups(np.where(member.any(axis=1), member.argmax(axis=1), NO_GROUP), len(names))


def check_shares(shares: NDArray[np.float64], names: tuple[str, ...]) -> None:
    """Checks that each group is the largest of some users. Raises GroupError.

    ``shares``: (users, N) of the training users.
    """
    own = shares[shares.any(axis=1)].argmax(axis=1)
    for name, size in zip(names, np.bincount(own, minlength=len(names)), strict=True):
        if size < max(MIN_GROUP_SHARE * len(own), 1.0):
            raise GroupError(
                f"group {name} has only {size} of {len(own)} training users; add training rows "
                f"about its items, or join it with another group"
            )


def _flags_of(columns: ItemColumns, category: str) -> dict[str, NDArray[np.float32]]:
    """Value → (items,) 1 for the items that have it."""
    found = [name.partition("=") for name in columns.names]
    return {
        value: columns.values[:, index]
        for index, (name, equals, value) in enumerate(found)
        if equals and name == category
    }
