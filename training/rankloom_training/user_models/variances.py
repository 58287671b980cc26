"""Variances that the user model starts from: of the items' means, and of the users' weights."""

from __future__ import annotations

from dataclasses import dataclass

SESSION_S = 7_200.0  # on MovieLens-1M, half an hour and a day are as likely


@dataclass(frozen=True, slots=True)
class MeanPrior:
    """Of an item's mean. ``blocks``: of each block of ``ItemFeatures.of_means``, in their order.

    ``own``: of what no feature says. ``row``: of one label about the mean.
    """

    blocks: tuple[float, ...]
    own: float
    row: float


@dataclass(frozen=True, slots=True)
class UserPrior:
    """Of a user's labels about the items' means. ``blocks``: of each block of item features.

    ``level``, ``session``: of the two levels. ``noise``: of one label about all of these.
    """

    blocks: tuple[float, ...]
    level: float
    session: float
    noise: float


@dataclass(frozen=True, slots=True)
class UserModelPrior:
    """Of the items' means, and of the users."""

    means: MeanPrior
    users: UserPrior


NUM_BLOCKS, NUM_MEAN_BLOCKS = 6, 5  # of item features, see ItemFeatures
# Of the size that films have; what fitting starts from.
USUAL_PRIOR = UserModelPrior(
    MeanPrior((0.005,) * NUM_MEAN_BLOCKS, own=0.01, row=0.15),
    UserPrior((0.005,) * NUM_BLOCKS, level=0.018, session=0.0074, noise=0.15),
)
