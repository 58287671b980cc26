"""How many user groups there may be."""

from __future__ import annotations

MIN_GROUPS = 2
MIN_GROUP_SHARE = 0.02
MAX_GROUPS = int(1 / MIN_GROUP_SHARE)  # of more groups, one must have a smaller share


class GroupError(ValueError):
    """The users cannot be split into that many groups."""


def check_groups(num_groups: int, num_users: int) -> None:
    """Checks the number of groups before anything is trained. Raises GroupError.

    One group is too few: the router would send every user to the global expert.
    """
    if not MIN_GROUPS <= num_groups <= MAX_GROUPS:
        raise GroupError(
            f"{num_groups} groups are out of range; ask for {MIN_GROUPS} to {MAX_GROUPS}"
        )
    if num_users < num_groups:
        raise GroupError(
            f"{num_users} users are too few for {num_groups} groups; ask for fewer groups"
        )
