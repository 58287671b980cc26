"""User groups: clusters of latent vectors, by the same cosine that the router uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans

from rankloom_adapters.router import Router, directions, group_of
from rankloom_training.group_counts import (
    MIN_GROUP_SHARE,
    Clustering,
    GroupError,
    check_groups,
)
from rankloom_training.metrics import Estimate, auc_difference
from rankloom_training.windows import Window

if TYPE_CHECKING:
    from rankloom_training.experts import TrainedMargins

MAX_WARD_USERS = 10_000  # Ward's method keeps the distances of all pairs: of more, some are drawn


def fit_router(
    vectors: NDArray[np.float32],
    num_groups: int,
    seed: int,
    clustering: Clustering = Clustering.KMEANS,
) -> Router:
    """A router over ``num_groups`` clusters of users' vectors (users, dim).

    Vectors are centred and scaled to length 1, so that Euclidean clusters are clusters by cosine,
    as the router routes. Each centroid is the mean of its users' raw vectors (ThinkRec,
    equation 8). Users with a zero vector are left out. Raises GroupError.
    """
    users = np.asarray(vectors[np.linalg.norm(vectors, axis=1) > 0], dtype=np.float64)
    check_groups(num_groups, len(users))
    centre = users.mean(axis=0)
    if clustering is Clustering.WARD and len(users) > MAX_WARD_USERS:
        users = users[np.random.default_rng(seed).permutation(len(users))[:MAX_WARD_USERS]]
    found = _clusters(directions(users, centre), num_groups, seed, clustering)
    sizes = np.bincount(found, minlength=num_groups)
    if sizes.min() < MIN_GROUP_SHARE * len(users):
        raise GroupError(
            f"a group has only {sizes.min()} of {len(users)} users; ask for fewer groups"
        )
    names = tuple(f"group-{index}" for index in range(num_groups))
    centroids = np.stack([users[found == index].mean(axis=0) for index in range(num_groups)])
    return Router(names, centre, centroids)


def _clusters(
    users: NDArray[np.float64], num_groups: int, seed: int, clustering: Clustering
) -> NDArray[np.int64]:
    """(users,) the cluster of each."""
    if clustering is Clustering.WARD:
        made = AgglomerativeClustering(num_groups, linkage="ward")
    else:
        made = KMeans(num_groups, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    return np.asarray(made.fit_predict(users), np.int64)


def window_groups(
    windows: list[Window], vectors: NDArray[np.floating], router: Router
) -> NDArray[np.int64]:
    """(windows,) the index of the group whose centroid is nearest to the newest row's vector."""
    newest = vectors[[window.rows[-1] for window in windows]]
    return group_of(newest, router.centre, router.centroids)


def have_both_classes(windows: list[Window]) -> bool:
    """AUC is defined only if the windows have both likes and dislikes."""
    return len({float(label) for window in windows for label in window.label}) == 2


def gain_of(user: NDArray[np.int64], windows: list[Window], found: TrainedMargins) -> Estimate:
    """AUC with the margins after training, minus AUC with those before."""
    tree_logits = np.concatenate([window.tree_logits for window in windows])
    label = np.concatenate([window.label for window in windows]) > 0
    return auc_difference(user, label, found.after + tree_logits, found.before + tree_logits)
