"""Groups of items, such as the domains of a catalogue: a user is routed by their shares of them.

Where groups are a property of the items, the router compares no latent vectors: a user's vector is
the share of their events in each group, and the centroid of a group is the user who has no others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Router, RouteThresholds
from rankloom_features.histories import Histories
from rankloom_features.running import running_sums

NO_GROUP = -1
# The weight of a share of .78 beside one of .22. Who has all events in one group exceeds it, be it
# one of two or of twenty.
OF_ONE_GROUP: Final = RouteThresholds(single_above=0.999, global_from=0.0)


class ItemGroupsError(ValueError):
    """The items' groups are unreadable, or of another catalogue or router."""


@dataclass(frozen=True, slots=True, eq=False)
class ItemGroups:
    """``group``: (items,) int64 index of each catalogue item's group, or NO_GROUP.

    ``num_groups``: N, as many as the router has.
    """

    group: NDArray[np.int64]
    num_groups: int

    def shares(self, histories: Histories) -> NDArray[np.float64]:
        """(n, N): of each history's events with a group, the share in each; 0 without any."""
        member = self.group[histories.index][:, None] == np.arange(self.num_groups)
        sums = running_sums(member)
        counts = sums[histories.end] - sums[histories.first]
        return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0))

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(self.group.tolist()).encode()

    @classmethod
    def from_bytes(cls, data: bytes, num_items: int, num_groups: int) -> ItemGroups:
        """Reads what ``to_bytes`` wrote. Raises ItemGroupsError."""
        try:
            group = np.array(json.loads(data))
        except (ValueError, RecursionError) as error:
            raise ItemGroupsError("item groups: unreadable; train the bundle again") from error
        if group.shape != (num_items,) or not np.issubdtype(group.dtype, np.integer):
            raise ItemGroupsError("item groups: of another catalogue; train the bundle again")
        if group.min() < NO_GROUP or group.max() >= num_groups:
            raise ItemGroupsError("item groups: of another router; train the bundle again")
        return cls(group.astype(np.int64), num_groups)


def router_of_shares(names: tuple[str, ...]) -> Router:
    """Routes users by their shares of the groups of these names.

    Who has less than 78 % of their events in one of two groups has the global expert: a group's
    expert has learnt nothing of other items, in which the same words may mean the opposite.
    """
    num = len(names)
    return Router(names, np.zeros(num), np.eye(num), fitted_thresholds=OF_ONE_GROUP)
