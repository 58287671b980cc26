"""Users as a bundle groups and routes them, from their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Route, directions, group_of
from rankloom_features.catalogue import Catalogue
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_ranker.loaded import LoadedBundle
from rankloom_training.group_counts import GroupError

MAX_USERS = 5000  # more are drawn from: the silhouette compares each user with each
SEED = 0
# What is known of a user beside the attributes of what they like.
SHARE_OF_LIKES, NUM_EVENTS, YEAR = "share of likes", "events", "year"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class GroupedUsers:
    """Users whose vector says something; arrays of one entry a user.

    ``directions``: (users, dim) of length 1. ``group``: index of the nearest centroid.
    ``traits``: (users, columns) of ``trait_names``, NaN where unknown. ``num_cold``: users beside
    these, whom the router sends to the global expert.
    """

    directions: NDArray[np.float64]
    group: NDArray[np.int64]
    route: NDArray[np.str_]
    traits: NDArray[np.float64]
    trait_names: tuple[str, ...]
    num_cold: int

    def __len__(self) -> int:
        return len(self.group)

    def trait(self, name: str) -> NDArray[np.float64]:
        """(users,) one column."""
        return self.traits[:, self.trait_names.index(name)]


def drawn(users: Sequence[T]) -> Sequence[T]:
    """At most MAX_USERS, at random."""
    if len(users) <= MAX_USERS:
        return users
    chosen = np.random.default_rng(SEED).permutation(len(users))[:MAX_USERS]
    return [users[index] for index in chosen]


def group_users(loaded: LoadedBundle, histories: Sequence[tuple[Event, ...]]) -> GroupedUsers:
    """``histories``: of each user, oldest event first. Raises GroupError if none has a vector."""
    router, catalogue = loaded.router, loaded.catalogue
    every = [loaded.provider.features(UserQuery(None, events)) for events in histories]
    routed = [(each, loaded.routing_vector(each)) for each in every]
    warm = [(user, vector) for user, vector in routed if router.weights(vector) is not None]
    if not warm:
        raise GroupError("no user has an event of an item that the bundle knows; pass another log")
    vectors = np.stack([vector for _, vector in warm])
    return GroupedUsers(
        directions=directions(vectors, router.centre),
        group=group_of(vectors, router.centre, router.centroids),
        route=np.array([str(router.route(vector).route) for vector in vectors]),
        traits=np.array([_traits(user.events, catalogue) for user, _ in warm]),
        trait_names=(*catalogue.attribute_names, YEAR, SHARE_OF_LIKES, NUM_EVENTS),
        num_cold=len(every) - len(warm),
    )


def routes(users: GroupedUsers) -> dict[Route, NDArray[np.bool_]]:
    """Route → (users,) who takes it."""
    return {route: users.route == route for route in Route}


def _traits(events: Sequence[Event], catalogue: Catalogue) -> list[float]:
    """Share of the liked items with each attribute, their mean year, share of likes, events."""
    liked = np.array([catalogue.index(e.item_id) for e in events if e.liked], np.int64)
    counts = [len(liked) / len(events), float(len(events))]
    if not len(liked):
        return [*[np.nan] * (len(catalogue.attribute_names) + 1), *counts]
    traits = catalogue.traits_at(liked)
    years = traits.year[~np.isnan(traits.year)]
    year = float(years.mean()) if len(years) else np.nan
    return [*traits.attributes.mean(axis=0).tolist(), year, *counts]
