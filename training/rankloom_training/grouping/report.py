"""What a bundle's groups are: their users and tastes, how far apart they are, and the routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Route
from rankloom_ranker.loaded import LoadedBundle
from rankloom_training.grouping.measures import cohens_d, separation, silhouettes
from rankloom_training.grouping.users import (
    NUM_EVENTS,
    SHARE_OF_LIKES,
    GroupedUsers,
    routes,
)

NUM_TRAITS = 4


@dataclass(frozen=True, slots=True)
class TypicalTrait:
    """``d``: Cohen's d of the group and all other users; below 0: less than others."""

    name: str
    d: float


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """One group. ``users``, ``likes``: their number, and the mean share of likes in their events.

    ``own_expert``: False where the group's expert is the global one. ``silhouette``,
    ``separation``: see ``measures``; None where undefined. ``typical``: the largest |d| first.
    """

    name: str
    users: int
    likes: float | None
    own_expert: bool
    silhouette: float | None
    separation: float | None
    typical: tuple[TypicalTrait, ...]


@dataclass(frozen=True, slots=True)
class RouteShare:
    """Which share of the users, and of their events, takes a route."""

    users: float
    events: float


@dataclass(frozen=True, slots=True)
class GroupsReport:
    """``num_users``: grouped, of ``num_histories`` that the log has; ``num_cold`` have no vector.

    ``temperature``, ``single_above``, ``global_from``: of the router that is served.
    """

    bundle_digest: str
    num_users: int
    num_histories: int
    num_cold: int
    temperature: float
    single_above: float
    global_from: float
    silhouette: float | None
    groups: tuple[GroupSummary, ...]
    routes: Mapping[Route, RouteShare]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def report_of(loaded: LoadedBundle, users: GroupedUsers, num_histories: int) -> GroupsReport:
    """``num_histories``: of the log, from which the users were drawn."""
    router = loaded.router
    silhouette = silhouettes(users.directions, users.group)
    return GroupsReport(
        bundle_digest=loaded.digest,
        num_users=len(users),
        num_histories=num_histories,
        num_cold=users.num_cold,
        temperature=router.temperature,
        single_above=router.thresholds.single_above,
        global_from=router.thresholds.global_from,
        silhouette=_mean(silhouette),
        groups=_summaries(loaded, users, silhouette),
        routes=_shares(users),
    )


def _summaries(
    loaded: LoadedBundle, users: GroupedUsers, silhouette: NDArray[np.float64]
) -> tuple[GroupSummary, ...]:
    router, digests = loaded.router, loaded.expert_digests
    apart = separation(users.directions, users.group, router.centroids - router.centre)
    members = [users.group == index for index in range(len(router.groups))]
    return tuple(
        GroupSummary(
            name=name,
            users=int(own.sum()),
            likes=_mean(users.trait(SHARE_OF_LIKES)[own]),
            own_expert=digests[index] != digests[-1],
            silhouette=_mean(silhouette[own]),
            separation=_mean(apart[[index]]),
            typical=_typical(users, own),
        )
        for index, (name, own) in enumerate(zip(router.groups, members, strict=True))
    )


def _typical(users: GroupedUsers, own: NDArray[np.bool_]) -> tuple[TypicalTrait, ...]:
    d = cohens_d(users.traits[own], users.traits[~own])
    order = np.argsort(-np.abs(np.nan_to_num(d)), kind="stable")[:NUM_TRAITS]
    return tuple(
        TypicalTrait(users.trait_names[column], float(d[column]))
        for column in order
        if np.isfinite(d[column])
    )


def _shares(users: GroupedUsers) -> dict[Route, RouteShare]:
    """Cold users go to the global expert, and have no events."""
    num, events = len(users) + users.num_cold, users.trait(NUM_EVENTS)
    cold = {Route.GLOBAL: users.num_cold}
    return {
        route: RouteShare(
            (int(taken.sum()) + cold.get(route, 0)) / num,
            float(events[taken].sum() / events.sum()),
        )
        for route, taken in routes(users).items()
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    """None for no values, or undefined ones."""
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None
