"""The user model: what each user likes beyond what all like, as a Gaussian that learns by event.

A Gaussian process over a user's residuals (label less the item's mean), in weight space: a user is
a Gaussian over a level, a session's level and a weight for each item factor. The session's level
decays as time passes. An event is one exact Bayesian update, of rank 1 (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", section 2.1, an event at a time). Columns are as of the
last event, so that they change with the history alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from rankloom_features.events import History

Float64s = NDArray[np.float64]
USER_MODEL_COLUMNS = (
    "user_model_mean",
    "user_model_item_mean",
    "user_model_level",
    "user_model_session",
    "user_model_affinity",
    "user_model_variance",
)
LEVEL, SESSION, FIRST_FACTOR = 0, 1, 2  # places in a user's mean and covariance
_ROWS_AT_ONCE = 1024  # a covariance for each is copied


class UserModelError(ValueError):
    """The user model is unreadable or belongs to another catalogue."""


@dataclass(frozen=True, slots=True)
class LevelPrior:
    """What is known of a user before the first event.

    ``level``, ``session``: variances of the two levels. ``session_s``: the seconds in which a
    session's level falls to 1 / e. ``overall``: the mean of an item without any row.
    """

    level: float
    session: float
    session_s: float
    overall: float


@dataclass(frozen=True, slots=True, eq=False)
class UserState:
    """A user after some events: the mean, (k + 2,), and covariance, (k + 2, k + 2), of the weights.

    The first weight is the level, the second the session's level, then one for each item factor.
    ``time``: of the last event with a time, NaN without one.
    """

    mean: Float64s
    covariance: Float64s
    time: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class UserStates:
    """One user at m moments. ``mean``: (m, k + 2). ``covariance``: (m, k + 2, k + 2)."""

    mean: Float64s
    covariance: Float64s


class UserModel:
    """Item factors and the users' common prior. Immutable; safe from several threads.

    ``factors``: (items, k). ``means``: (items,) the share of likes that an average user gives.
    ``noise``: (items,) variance of a label that neither mean nor weights explain. Raises
    UserModelError.
    """

    def __init__(
        self,
        factors: NDArray[np.float32],
        means: NDArray[np.float32],
        noise: NDArray[np.float32],
        prior: LevelPrior,
    ) -> None:
        _check(factors, means, noise, prior)
        self.factors, self.means, self.noise, self.prior = factors, means, noise, prior
        # What weights are multiplied with; the last row is an item that nobody knows.
        self._inputs = np.zeros((len(factors) + 1, FIRST_FACTOR + factors.shape[1]))
        self._inputs[:, :FIRST_FACTOR] = 1.0
        self._inputs[:-1, FIRST_FACTOR:] = factors
        self._means = np.append(means, prior.overall).astype(np.float64)
        self._noise = noise.astype(np.float64)

    def new_user(self) -> UserState:
        """A user without events."""
        variances = np.ones(self._inputs.shape[1])
        variances[[LEVEL, SESSION]] = self.prior.level, self.prior.session
        return UserState(np.zeros(len(variances)), np.diag(variances))

    def updated(self, state: UserState, item: int, liked: bool, time: float) -> UserState:
        """The user after one more event. ``item``: catalogue index. ``time``: seconds, or NaN.

        Without a time, or with one before the last, no time has passed.
        """
        before = self._later(state, time)
        inputs = self._inputs[item]
        shared = before.covariance @ inputs
        gain = shared / (inputs @ shared + self._noise[item])
        error = liked - self._means[item] - inputs @ before.mean
        covariance = before.covariance - gain[:, None] * shared
        return UserState(before.mean + gain * error, covariance, before.time)

    def states(self, history: History, seen: NDArray[np.int64]) -> UserStates:
        """The user at the moments when there were ``seen`` events, (m,)."""
        wanted, moment = np.unique(seen, return_inverse=True)
        kept = set(wanted.tolist())
        found = [state for at, state in enumerate(self._walk(history)) if at in kept]
        return UserStates(
            np.stack([state.mean for state in found])[moment],
            np.stack([state.covariance for state in found])[moment],
        )

    def columns(
        self, states: UserStates, candidates: NDArray[np.int64], moment: NDArray[np.int64]
    ) -> dict[str, Float64s]:
        """(n,) each, by name, for candidates (n,), -1 for an unknown item, at moments (n,)."""
        inputs, means = self._inputs[candidates], self._means[candidates]
        weights = states.mean[moment]
        affinity = (inputs[:, FIRST_FACTOR:] * weights[:, FIRST_FACTOR:]).sum(axis=1)
        level, session = weights[:, LEVEL], weights[:, SESSION]
        values = (
            means + level + session + affinity,
            means,
            level,
            session,
            affinity,
            _variances(states.covariance, inputs, moment),
        )
        return dict(zip(USER_MODEL_COLUMNS, values, strict=True))

    def with_items(self, num: int) -> UserModel:
        """The model with ``num`` items behind the others, of which nothing is known."""
        unexplained = float(self.noise.mean()) if len(self.noise) else 1.0
        return UserModel(
            np.concatenate([self.factors, np.zeros((num, self.factors.shape[1]), np.float32)]),
            np.append(self.means, np.full(num, self.prior.overall, np.float32)),
            np.append(self.noise, np.full(num, unexplained, np.float32)),
            self.prior,
        )

    def to_bytes(self) -> bytes:
        """safetensors."""
        arrays = {"factors": self.factors, "means": self.means, "noise": self.noise}
        made = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return bytes(safetensors.numpy.save(made | {"prior": np.array(astuple(self.prior))}))

    @classmethod
    def from_bytes(cls, data: bytes, num_items: int) -> UserModel:
        """Reads what ``to_bytes`` wrote, for a catalogue of that size. Raises UserModelError."""
        try:
            found = safetensors.numpy.load(data)
            model = cls(prior=LevelPrior(*found.pop("prior").tolist()), **found)
        except UserModelError:
            raise
        except Exception as error:  # safetensors' own class is not exported
            raise UserModelError("user model: cannot be read; train it again") from error
        if len(model.means) != num_items:
            raise UserModelError("user model: of another catalogue; train both together")
        return model

    def _walk(self, history: History) -> Iterator[UserState]:
        """The user after 0, 1, …, n events."""
        state = self.new_user()
        yield state
        events = history.index.tolist(), history.liked.tolist(), history.time.tolist()
        for item, liked, time in zip(*events, strict=True):
            state = self.updated(state, item, liked, time)
            yield state

    def _later(self, state: UserState, time: float) -> UserState:
        """The user at a later time: an Ornstein-Uhlenbeck process moves the session's level."""
        elapsed = time - state.time
        if not elapsed > 0.0:
            last = time if math.isnan(state.time) else state.time
            return UserState(state.mean, state.covariance, last)
        decay = math.exp(-elapsed / self.prior.session_s)
        mean, covariance = state.mean.copy(), state.covariance.copy()
        mean[SESSION] *= decay
        covariance[SESSION] *= decay
        covariance[:, SESSION] *= decay
        covariance[SESSION, SESSION] += self.prior.session * (1.0 - decay * decay)
        return UserState(mean, covariance, time)


def _check(
    factors: NDArray[np.float32],
    means: NDArray[np.float32],
    noise: NDArray[np.float32],
    prior: LevelPrior,
) -> None:
    arrays, num = (factors, means, noise), len(means)
    shapes_fit = factors.ndim == 2 and len(factors) == num and means.shape == noise.shape == (num,)
    if not shapes_fit or any(array.dtype != np.float32 for array in arrays):
        raise UserModelError("user model: needs float32 factors, a mean and a noise for each item")
    if not all(np.isfinite(array).all() for array in (*arrays, np.array(astuple(prior)))):
        raise UserModelError("user model: a value is NaN or infinite; train it again")
    if (noise <= 0).any() or min(prior.level, prior.session) < 0 or prior.session_s <= 0:
        raise UserModelError("user model: a variance is not positive; train it again")


def _variances(covariance: Float64s, inputs: Float64s, moment: NDArray[np.int64]) -> Float64s:
    """(n,) how uncertain the user's mean of each candidate is; rounding as for each alone."""
    found = np.empty(len(inputs))
    for at in range(0, len(inputs), _ROWS_AT_ONCE):
        part = slice(at, at + _ROWS_AT_ONCE)
        shared = np.einsum("nij,nj->ni", covariance[moment[part]], inputs[part])
        found[part] = (shared * inputs[part]).sum(axis=1)
    return found
