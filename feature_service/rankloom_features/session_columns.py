"""Tabular columns of the session that a user is in: which items go with the likes of just now.

Of two users with the same likes, one may be in the middle of a session and the other come back
after months. What they do next differs more than with anything else that is known of them, so the
columns depend on the time of the call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.events import History
from rankloom_features.running import Floats, running_sums

SESSION_S = 86_400.0  # a longer pause ends a session
MAX_PAUSE_H = 24.0 * 365  # a longer pause counts as one of a year
WINDOW, DECAY = 10, 0.8  # of so many last likes, each earlier one counts less
SESSION_COLUMNS = ("user_log_hours_away", "pair_session_lift", "pair_session_last")


@dataclass(frozen=True, slots=True, eq=False)
class SessionProfile:
    """A user at m moments: ``lately``, ``last``: (m, k) item factors of the last likes, decayed,
    and of the last one. ``time``: (m,) of the last event, NaN where unknown.
    """

    lately: Floats
    last: Floats
    time: Floats


@dataclass(frozen=True, slots=True, eq=False)
class SessionColumns:
    """``factors``: (items, k); the products of two items' factors say how much more often than by
    chance they are liked in one session. None where that is not known: then there is no column.
    """

    factors: NDArray[np.float32] | None

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.factors is None else SESSION_COLUMNS

    def profile(self, history: History, seen: NDArray[np.int64]) -> SessionProfile | None:
        """The user after the first ``seen`` events, (m,)."""
        if self.factors is None:
            return None
        liked = self.factors[history.index[history.liked]].astype(np.float64)
        # Zeros stand before the first like, and zeros are what a user without likes has.
        padded = np.concatenate([np.zeros((WINDOW, self.factors.shape[1])), liked])
        num_liked = running_sums(history.liked)[seen].astype(np.int64)
        lately = sum(DECAY**back * padded[num_liked + WINDOW - 1 - back] for back in range(WINDOW))
        time = np.append(np.nan, history.time)[seen]
        return SessionProfile(np.asarray(lately), padded[num_liked + WINDOW - 1], time)

    def columns(
        self,
        profile: SessionProfile | None,
        index: NDArray[np.int64],
        moment: NDArray[np.int64],
        now: Floats,
    ) -> NDArray[np.float32]:
        """(n, names) of n candidates; NaN where a value is unknown or the session is over.

        ``index``: -1 for an unknown item. ``moment``: of the profile. ``now``: seconds since 1970.
        """
        if self.factors is None or profile is None:
            return np.zeros((len(index), 0), np.float32)
        pause_h = np.maximum(now - profile.time[moment], 0.0) / 3600.0
        known = np.where(index >= 0, index, 0)
        candidate = self.factors[known].astype(np.float64)
        going_on = (index >= 0) & (pause_h * 3600.0 < SESSION_S)
        products = [
            np.where(going_on, (candidate * factors[moment]).sum(axis=1), np.nan)
            for factors in (profile.lately, profile.last)
        ]
        away = np.log1p(np.minimum(pause_h, MAX_PAUSE_H))
        return np.stack([away, *products], axis=1).astype(np.float32)
