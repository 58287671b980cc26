"""From a log's rows to a user model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rankloom_features.user_model import LevelPrior, UserModel
from rankloom_training.data import Interactions
from rankloom_training.user_models.evidence import UserEvidence, fitted_user_prior
from rankloom_training.user_models.item_features import ItemFeatures, strongest
from rankloom_training.user_models.item_means import fitted_mean_prior, item_means
from rankloom_training.user_models.labels import Labels, labels_of
from rankloom_training.user_models.variances import SESSION_S, UserModelPrior

RANK = 16  # on MovieLens-1M, 32 adds nothing
MAX_USERS = 250  # whose labels the prior is fitted on


def fitted_user_model(labels: Labels, features: ItemFeatures, prior: UserModelPrior) -> UserModel:
    """The user model of some rows. ``features``: from the same rows."""
    means = labels.overall + item_means(labels, features.of_means, prior.means)
    weighted, users = features.weighted(prior.users.blocks), prior.users
    factors = strongest(weighted, RANK)
    unexplained = (weighted**2).sum(axis=1) - (factors**2).sum(axis=1)
    return UserModel(
        factors.astype(np.float32),
        means.astype(np.float32),
        (users.noise + np.maximum(unexplained, 0.0)).astype(np.float32),
        LevelPrior(users.level, users.session, SESSION_S, labels.overall),
    )


def fitted_prior(
    log: Interactions, features: ItemFeatures, others: NDArray[np.bool_], own: NDArray[np.bool_]
) -> UserModelPrior:
    """The prior of the highest evidence.

    ``others``: mask of the rows that ``features`` and the items' means are from. ``own``: mask of
    the rows of other users, whose labels the users' prior is fitted on.
    """
    labels = labels_of(log, others)
    means_prior = fitted_mean_prior(labels, features.of_means)
    means = labels.overall + item_means(labels, features.of_means, means_prior)
    users = list(_evidence(log, features, means, own & log.happened))
    return UserModelPrior(means_prior, fitted_user_prior(users))


def _evidence(
    log: Interactions, features: ItemFeatures, means: NDArray[np.float64], own: NDArray[np.bool_]
) -> Iterator[UserEvidence]:
    """Of some users, spread evenly."""
    rows = np.flatnonzero(own)
    users, first = np.unique(log.user[rows], return_index=True)
    of_users = np.split(rows, first[1:]) if len(users) else []
    for at in np.linspace(0, len(users) - 1, min(len(users), MAX_USERS)).astype(np.int64):
        mine = of_users[at]
        item = log.item[mine]
        blocks = [block[item] for block in features.blocks]
        yield UserEvidence(log.liked[mine] - means[item], blocks, log.time[mine])
