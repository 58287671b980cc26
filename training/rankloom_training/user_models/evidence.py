"""The users' prior, by the evidence (marginal likelihood) of training users' labels.

A user's residuals are Gaussian with covariance K, a sum of parts with a variance each. The
evidence and its gradient are equations 5.8 and 5.9 of Rasmussen and Williams, "Gaussian Processes
for Machine Learning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from rankloom_training.user_models.item_features import Float64s
from rankloom_training.user_models.variances import SESSION_S, USUAL_PRIOR, UserPrior

MAX_STEPS = 40
SMALLEST, LARGEST = 1e-6, 1.0  # bounds of a variance; labels are 0 or 1
MAX_EVENTS = 64  # of a user: the cost grows with the cube


@dataclass(frozen=True, slots=True, eq=False)
class UserEvidence:
    """One user's events. ``residual``: (n,). ``inputs``: (n, d) for each block. ``time``: (n,)."""

    residual: Float64s
    inputs: Sequence[Float64s]
    time: Float64s

    def newest(self) -> UserEvidence:
        """At most MAX_EVENTS."""
        part = slice(-MAX_EVENTS, None)
        inputs = [block[part] for block in self.inputs]
        return UserEvidence(self.residual[part], inputs, self.time[part])

    def parts(self) -> Float64s:
        """(parts, n, n) of the covariance, each with variance 1: blocks, levels, noise."""
        num = len(self.residual)
        apart = np.abs(self.time[:, None] - self.time)
        session = np.exp(-np.nan_to_num(apart, nan=0.0) / SESSION_S)
        blocks = [block @ block.T for block in self.inputs]
        return np.stack([*blocks, np.ones((num, num)), session, np.eye(num)])


@dataclass(frozen=True, slots=True, eq=False)
class UserCovariances:
    """Users padded to one length: ``residual``: (users, n). ``parts``: (parts, users, n, n).

    ``padding``: (users, n) 1 where a user has no event.
    """

    residual: Float64s
    parts: Float64s
    padding: Float64s

    @classmethod
    def of(cls, users: Sequence[UserEvidence]) -> UserCovariances:
        """Of the newest events of at least one user."""
        users = [user.newest() for user in users]
        length = max(len(user.residual) for user in users)
        residual, padding = np.zeros((2, len(users), length))
        parts = np.zeros((len(users[0].inputs) + 3, len(users), length, length))
        for row, user in enumerate(users):
            num = len(user.residual)
            residual[row, :num], padding[row, num:] = user.residual, 1.0
            parts[:, row, :num, :num] = user.parts()
        return cls(residual, parts, padding)

    def loss(self, variances: Float64s) -> tuple[float, Float64s]:
        """The negative log evidence but for a constant, and its gradient by variance, (parts,)."""
        covariance = np.tensordot(variances, self.parts, axes=1)
        diagonal = np.arange(covariance.shape[1])
        covariance[:, diagonal, diagonal] += self.padding
        inverse = np.linalg.inv(covariance)
        solved = np.einsum("uij,uj->ui", inverse, self.residual)
        loss = 0.5 * (np.linalg.slogdet(covariance)[1].sum() + (solved * self.residual).sum())
        inverse -= solved[:, :, None] * solved[:, None, :]
        gradient = 0.5 * np.tensordot(self.parts, inverse, axes=3)
        return float(loss), np.asarray(gradient, np.float64)


def fitted_user_prior(users: Sequence[UserEvidence]) -> UserPrior:
    """The prior of the highest evidence; a usual one without users."""
    if not users:
        return USUAL_PRIOR.users
    covariances = UserCovariances.of(users)

    def loss(logs: Float64s) -> tuple[float, Float64s]:
        found, gradient = covariances.loss(np.exp(logs))
        return found, gradient * np.exp(logs)

    start = USUAL_PRIOR.users
    first = np.log([*start.blocks, start.level, start.session, start.noise])
    bounds = [(np.log(SMALLEST), np.log(LARGEST))] * len(first)
    found = minimize(
        loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_STEPS}
    )
    *blocks, level, session, noise = np.exp(found.x).tolist()
    return UserPrior(tuple(blocks), level, session, noise)
