"""User groups: clusters of latent vectors, in the space and by the measure that routes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from rankloom_adapters.gate import Gate

MIN_GROUP_SHARE = 0.02


class GroupError(ValueError):
    """The users cannot be parted into the groups asked for."""


def fit_gate(vectors: NDArray[np.float32], num_groups: int, seed: int) -> Gate:
    """A gate over ``num_groups`` clusters of users' vectors (users, dim).

    Vectors are centred by their mean and put on the unit sphere, where Euclidean
    k-means groups by cosine, the measure that the gate routes by; each centroid is
    the mean of its users' raw vectors (ThinkRec, equation 8). Raises GroupError.
    """
    users = np.asarray(vectors[np.linalg.norm(vectors, axis=1) > 0], dtype=np.float64)
    if len(users) < num_groups:
        raise GroupError(f"{len(users)} users with a vector; {num_groups} groups need more")
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
    return Gate(names, centre, centroids)
