"""User groups: clusters of latent vectors, in the space and by the measure that routes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from rankloom_adapters.router import Router, group_of
from rankloom_training.metrics import Estimate, auc_difference
from rankloom_training.windows import Window

MIN_GROUPS = 2
MIN_GROUP_SHARE = 0.02
MAX_GROUPS = int(1 / MIN_GROUP_SHARE)  # more could not all have that share


class GroupError(ValueError):
    """The users cannot be parted into the groups asked for."""


def check_groups(num_groups: int, num_users: int) -> None:
    """Refuses a number of groups that cannot work, before anything is trained.

    With one group every user would be routed to the global expert. Raises GroupError.
    """
    if not MIN_GROUPS <= num_groups <= MAX_GROUPS:
        raise GroupError(f"{num_groups} groups; ask for {MIN_GROUPS} to {MAX_GROUPS}")
    if num_users < num_groups:
        raise GroupError(f"{num_users} users cannot be parted into {num_groups} groups")


def fit_router(
    vectors: NDArray[np.float32], num_groups: int, seed: int, max_experts: int | None = None
) -> Router:
    """A router over ``num_groups`` clusters of users' vectors (users, dim).

    Vectors are centred by their mean and put on the unit sphere, where Euclidean
    k-means groups by cosine, the measure that the router routes by; each centroid is
    the mean of its users' raw vectors (ThinkRec, equation 8). Raises GroupError.
    """
    users = np.asarray(vectors[np.linalg.norm(vectors, axis=1) > 0], dtype=np.float64)
    check_groups(num_groups, len(users))
    centre = users.mean(axis=0)
    directions = users - centre
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    clusters = KMeans(num_groups, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    found = clusters.fit_predict(directions)
    sizes = np.bincount(found, minlength=num_groups)
    if sizes.min() < MIN_GROUP_SHARE * len(users):
        raise GroupError(f"a group of {sizes.min()} of {len(users)} users; ask for fewer groups")
    names = tuple(f"group-{number}" for number in range(num_groups))
    centroids = np.stack([users[found == number].mean(axis=0) for number in range(num_groups)])
    return Router(names, centre, centroids, max_experts=max_experts)


def window_groups(
    windows: list[Window], vectors: NDArray[np.float32], router: Router
) -> NDArray[np.int64]:
    """The group that each window's newest row would be routed to."""
    newest = vectors[[window.places[-1] for window in windows]]
    return group_of(newest, router.centre, router.centroids)


def have_both_classes(windows: list[Window]) -> bool:
    """Whether windows can be judged by AUC."""
    return len({float(label) for window in windows for label in window.label}) == 2


def gain_of(
    user: NDArray[np.int64],
    windows: list[Window],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
) -> Estimate:
    """By how much the windows' AUC rose from one set of margins to another."""
    tree_logits = np.concatenate([window.tree_logits for window in windows])
    label = np.concatenate([window.label for window in windows]) > 0
    return auc_difference(user, label, after + tree_logits, before + tree_logits)
