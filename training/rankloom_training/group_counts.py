"""How users are clustered into groups, and how many groups there may be."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

MIN_GROUPS = 2
MIN_GROUP_SHARE = 0.02
MAX_GROUPS = int(1 / MIN_GROUP_SHARE)  # of more groups, one must have a smaller share
AUTO: Final = "auto"  # the number is chosen on validation rows, up to MAX_TRIED
MAX_TRIED = 8

NumGroups = int | Literal["auto"]


class Clustering(StrEnum):
    """How users are clustered. Both compare directions of user vectors, as the router does."""

    KMEANS = "kmeans"
    WARD = "ward"


class GroupError(ValueError):
    """The users cannot be split into that many groups."""


def check_groups(num_groups: NumGroups, num_users: int) -> None:
    """Checks the number of groups before anything is trained. Raises GroupError.

    One group is too few: the router would send every user to the global expert.
    """
    least = MIN_GROUPS if num_groups == AUTO else num_groups
    if not MIN_GROUPS <= least <= MAX_GROUPS:
        raise GroupError(f"{least} groups are out of range; ask for {MIN_GROUPS} to {MAX_GROUPS}")
    if num_users < least:
        raise GroupError(f"{num_users} users are too few for {least} groups; ask for fewer groups")
