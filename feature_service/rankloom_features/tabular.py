"""Tabular features of a user and a candidate: the input of the trees and of one soft token.

They are computed only from statistics of the training rows and from the events that are
passed in, so that serving and training share one definition.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, ItemTraits
from rankloom_features.events import History
from rankloom_features.item_columns import NO_COLUMNS, ItemColumns
from rankloom_features.item_statistics import MEAN_PRIOR_ROWS, ItemStatistics
from rankloom_features.model_columns import COLLABORATIVE, REVIEW_RATING
from rankloom_features.running import (
    Floats,
    inner_products,
    means_between,
    running_means,
    running_sums,
)
from rankloom_features.session_columns import SessionColumns, SessionProfile
from rankloom_features.user_model import USER_MODEL_COLUMNS, UserModel, UserStates

LEVEL_PRIOR_ROWS = 5.0
YEAR_SCALE = 6.0
RECENT_EVENTS = (5, 20)
MAX_PRODUCTS = 1 << 20  # computed at once; a user may have thousands of rows and of likes

LOG_COUNT = "item_log_count"
_ITEM = (LOG_COUNT, "item_mean", "item_year")
_USER = (
    "user_log_liked",
    "user_log_disliked",
    "user_level",
    "user_level_before_last_dislike",
    "user_likes_since_dislike",
    *(f"user_level_last_{n}" for n in RECENT_EVENTS),
    "user_liked_item_mean",
    "user_disliked_item_mean",
    "user_liked_log_count",
    "user_liked_year",
)
_PAIR = (
    "pair_attribute_level_mean",
    "pair_attribute_level_min",
    "pair_attribute_level_max",
    "pair_attribute_share",
    "pair_attribute_log_count",
    "pair_year_gap",
    "pair_year_level",
    "pair_log_count_gap",
    "pair_item_mean_gap",
    "pair_expected",
    "pair_co_liking_mean",
    "pair_co_liking_max",
    "pair_co_liking_recent",
    "pair_co_rating_level",
    "pair_co_rating_lift",
)
_COMPUTED = (*_ITEM, *_USER, *_PAIR)  # the candidate's attributes follow
RECENT_LIKES = 10
# The trees' score never falls when one of these rises.
MONOTONE = frozenset(
    {
        "item_mean",
        "user_level",
        "user_level_before_last_dislike",
        "pair_attribute_level_mean",
        "pair_attribute_share",
        "pair_year_level",
        "pair_expected",
        "pair_co_rating_level",
        "pair_co_rating_lift",
        "user_model_mean",
        "user_model_item_mean",
        "user_model_affinity",
        "pair_session_lift",
        "pair_session_last",
        REVIEW_RATING,
        COLLABORATIVE,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The part of the features that depends on the user's events alone, at m moments.

    A moment is a number of events that the user had by then. ``values``: the user's own columns,
    (m,) each. ``attributes``: level, share and count of each attribute, (m, A). ``years``: for
    each year of the catalogue the sum of its events' residuals and their number, (m, Y).
    ``together``: four (m, k) of item factors: the mean over liked items, the mean over the last
    liked ones, the sum over all items weighted by label less item mean, and the sum weighted by
    centred residual; NaN without events. ``num_events``, ``num_liked``: (m,). ``liked``:
    catalogue indices of all liked items; a moment has the first ``num_liked`` of them.
    ``columns``: mean of each item column over the liked items that have it, (m, C). ``states``:
    of the user model, None without one. ``session``: None where sessions are not known.
    """

    values: Mapping[str, Floats]
    attributes: tuple[Floats, Floats, Floats]
    years: tuple[Floats, Floats]
    together: tuple[Floats, Floats, Floats, Floats]
    num_events: NDArray[np.int64]
    num_liked: NDArray[np.int64]
    liked: NDArray[np.int64]
    columns: Floats
    states: UserStates | None
    session: SessionProfile | None


class TabularFeatures:
    """Computes the feature matrix from item statistics and a user model. Immutable."""

    def __init__(
        self,
        catalogue: Catalogue,
        statistics: ItemStatistics,
        user_model: UserModel | None = None,
        columns: ItemColumns = NO_COLUMNS,
    ) -> None:
        self._traits = catalogue.traits
        self._mean = statistics.mean
        self._co_liking = np.ascontiguousarray(statistics.co_liking)
        self._co_rating = np.ascontiguousarray(statistics.co_rating)
        self._log_count = np.log1p(statistics.rows)
        self._overall = statistics.overall_mean
        weight = statistics.rows / max(float(statistics.rows.sum()), 1.0)
        self._attribute_share = weight @ self._traits.attributes
        self._years = np.unique(self._traits.year[~np.isnan(self._traits.year)])
        self._user_model, self._columns = user_model, columns
        self._session = SessionColumns(statistics.co_session)
        modelled = USER_MODEL_COLUMNS if user_model else ()
        self.names = (*column_names(catalogue, columns), *modelled, *self._session.names)
        self.schema_digest = schema_digest(self.names)

    def profile(self, history: History, seen: NDArray[np.int64] | None = None) -> Profile:
        """The profile at the moments when the user had ``seen`` events (m,); None: all of them.

        A profile at one moment equals that of the history cut there, to the last bit.
        """
        seen = np.array([len(history)]) if seen is None else seen
        plain = history.liked - self._mean[history.index]
        values = self._user(history, plain, seen)
        num_liked = running_sums(history.liked)[seen].astype(np.int64)
        return Profile(
            values=values,
            attributes=self._attributes(history, plain, values["user_level"], seen),
            years=self._by_year(history, plain, values["user_level"], seen),
            together=self._together(history, plain, seen, num_liked),
            num_events=seen,
            num_liked=num_liked,
            liked=history.index[history.liked],
            columns=self._liked_columns(history, num_liked),
            states=self._user_model.states(history, seen) if self._user_model else None,
            session=self._session.profile(history, seen),
        )

    def matrix(
        self,
        profile: Profile,
        candidates: ItemTraits,
        moment: NDArray[np.int64] | None = None,
        now: Floats | float = math.nan,
    ) -> NDArray[np.float32]:
        """(n, len(names)) float32 for n candidates; NaN where a value is unknown.

        ``moment``: (n,) the moment of the profile for each candidate; None: the first. ``now``:
        when the candidates are asked for, seconds since 1970, (n,) or one for all; NaN: unknown.
        """
        known = candidates.index >= 0
        index = np.where(known, candidates.index, 0)
        moment = np.zeros(len(index), np.int64) if moment is None else moment
        mean = np.where(known, self._mean[index], np.float32(self._overall))
        log_count = np.where(known, self._log_count[index], np.float32(0.0))
        user = {name: values[moment] for name, values in profile.values.items()}
        item = {"item_log_count": log_count, "item_mean": mean, "item_year": candidates.year}
        pair = self._pair(profile, candidates, moment, item | user)
        columns = item | user | pair
        matrix = np.empty((len(index), len(self.names)), np.float32)
        for column, name in enumerate(_COMPUTED):
            matrix[:, column] = columns[name]
        facts = self._columns.at(candidates.index)
        gaps = facts - profile.columns[moment]
        modelled = self._modelled(profile, candidates.index, moment)
        sessions = self._session.columns(profile.session, candidates.index, moment, np.asarray(now))
        further: list[Floats] = [candidates.attributes, facts, gaps, *modelled, sessions]
        matrix[:, len(_COMPUTED) :] = np.concatenate(further, axis=1)
        return matrix

    def _modelled(
        self, profile: Profile, index: NDArray[np.int64], moment: NDArray[np.int64]
    ) -> list[Floats]:
        """(n, columns) of the user model; nothing without one."""
        if self._user_model is None or profile.states is None:
            return []
        columns = self._user_model.columns(profile.states, index, moment)
        return [np.stack(list(columns.values()), axis=1)]

    def _user(self, history: History, plain: Floats, seen: NDArray[np.int64]) -> dict[str, Floats]:
        """The user's own columns at each moment."""
        liked, mean, year = history.liked, self._mean[history.index], self._year_of(history)
        total, liked_so_far = running_sums(plain), running_sums(liked)
        ends = np.where(liked, 0, np.arange(1, len(liked) + 1))
        known = np.maximum.accumulate(np.append(0, ends))[seen]  # events up to the last dislike
        levels = {
            f"user_level_last_{n}": _level(total, np.maximum(seen - n, 0), seen)
            for n in RECENT_EVENTS
        }
        start = np.zeros_like(seen)
        dated = liked & ~np.isnan(year)
        return levels | {
            "user_log_liked": np.log1p(liked_so_far[seen]),
            "user_log_disliked": np.log1p(seen - liked_so_far[seen]),
            "user_level": _level(total, start, seen),
            "user_level_before_last_dislike": _level(total, start, known),
            "user_likes_since_dislike": np.log1p(seen - known),
            "user_liked_item_mean": running_means(mean, liked)[seen],
            "user_disliked_item_mean": running_means(mean, ~liked)[seen],
            "user_liked_log_count": running_means(self._log_count[history.index], liked)[seen],
            "user_liked_year": running_means(np.where(dated, year, 0.0), dated)[seen],
        }

    def _year_of(self, history: History) -> Floats:
        return self._traits.year[history.index]

    def _attributes(
        self, history: History, plain: Floats, level: Floats, seen: NDArray[np.int64]
    ) -> tuple[Floats, Floats, Floats]:
        """Level, share and count of each attribute, see Profile."""
        own = self._traits.attributes[history.index]
        count = running_sums(own)[seen]
        residual = running_sums(plain[:, None] * own)[seen] - level[:, None] * count
        liked = running_sums(history.liked[:, None] * own)[seen]
        average = MEAN_PRIOR_ROWS * self._attribute_share
        num_liked = running_sums(history.liked)[seen][:, None]
        share = (liked + average) / (num_liked + MEAN_PRIOR_ROWS) - self._attribute_share
        return residual / (count + LEVEL_PRIOR_ROWS), share, count

    def _by_year(
        self, history: History, plain: Floats, level: Floats, seen: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """The sum of residuals and the number of events by year, see Profile."""
        own = (self._year_of(history)[:, None] == self._years).astype(np.float64)
        count = running_sums(own)[seen]
        return running_sums(plain[:, None] * own)[seen] - level[:, None] * count, count

    def _together(
        self,
        history: History,
        plain: Floats,
        seen: NDArray[np.int64],
        num_liked: NDArray[np.int64],
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Factors to multiply with those of the candidates, see Profile."""
        liking = running_sums(self._co_liking[history.index[history.liked]])
        rated = self._co_rating[history.index]
        start = np.zeros_like(num_liked)
        lately = np.maximum(num_liked - RECENT_LIKES, 0)
        weighted = running_sums(plain[:, None] * rated)[seen]
        num = np.where(seen > 0, seen, np.nan)[:, None]
        average = running_sums(plain)[seen][:, None] / num
        return (
            means_between(liking, start, num_liked),
            means_between(liking, lately, num_liked),
            weighted + 0.0 * num,  # NaN without events
            weighted - average * running_sums(rated)[seen],
        )

    def _liked_columns(self, history: History, num_liked: NDArray[np.int64]) -> Floats:
        """The mean of each item column over the liked items that have a value, see Profile."""
        values = self._columns.at(history.index[history.liked])
        known = ~np.isnan(values)
        num = running_sums(known)[num_liked]
        sums = running_sums(np.where(known, values, 0.0))[num_liked]
        return np.asarray(sums / np.where(num > 0, num, np.nan))

    def _pair(
        self,
        profile: Profile,
        candidates: ItemTraits,
        moment: NDArray[np.int64],
        known: Mapping[str, Floats],
    ) -> dict[str, Floats]:
        """The columns of user and candidate. ``known``: the columns of each, (n,)."""
        mean, year_level = known["item_mean"], self._year_level(profile, candidates.year, moment)
        attributes = _attribute_levels(profile, candidates.attributes, moment)
        level = known["user_level"] + attributes["pair_attribute_level_mean"]
        return (
            attributes
            | self._co_columns(profile, candidates.index, moment)
            | {
                "pair_year_gap": candidates.year - known["user_liked_year"],
                "pair_year_level": year_level,
                "pair_log_count_gap": known["item_log_count"] - known["user_liked_log_count"],
                "pair_item_mean_gap": mean - known["user_liked_item_mean"],
                "pair_expected": mean + level + year_level,
            }
        )

    def _year_level(self, profile: Profile, year: Floats, moment: NDArray[np.int64]) -> Floats:
        """The user's level among items from about the candidate's year."""
        gap = np.abs(year[:, None] - self._years)
        near = np.fmax(np.exp(-gap / YEAR_SCALE), 0.0)  # 0 for an unknown year
        residual, count = (values[moment] for values in profile.years)
        level = (near * residual).sum(axis=1) / ((near * count).sum(axis=1) + LEVEL_PRIOR_ROWS)
        return np.asarray(level)

    def _co_columns(
        self, profile: Profile, index: NDArray[np.int64], moment: NDArray[np.int64]
    ) -> dict[str, Floats]:
        """How well the candidates match the items that the user liked and rated."""
        names = [name for name in _PAIR if name.startswith("pair_co_")]
        values = np.full((len(names), len(index)), np.nan, dtype=np.float32)
        known = index >= 0
        if known.any():
            then = moment[known]
            liking, rating = self._co_liking[index[known]], self._co_rating[index[known]]
            liked, lately, rated, lifted = (factors[then] for factors in profile.together)
            num = profile.num_events[then] + LEVEL_PRIOR_ROWS
            values[0, known] = (liking * liked).sum(axis=1)
            values[1, known] = self._best_match(liking, profile, then)
            values[2, known] = (liking * lately).sum(axis=1)
            values[3, known] = (rating * rated).sum(axis=1) / num
            values[4, known] = (rating * lifted).sum(axis=1) / num
        return dict(zip(names, values, strict=True))

    def _best_match(
        self, liking: NDArray[np.float32], profile: Profile, moment: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(n,) the largest inner product with an item that was liked by then; NaN without one."""
        best = np.full(len(liking), np.nan, np.float32)
        others, num = self._co_liking[profile.liked], profile.num_liked[moment]
        rows = max(1, MAX_PRODUCTS // max(len(others), 1))
        for at in range(0, len(liking) if len(others) else 0, rows):
            part = slice(at, at + rows)
            products = inner_products(liking[part], others)
            unseen = np.arange(len(others)) >= num[part, None]
            products[unseen] = -np.inf
            best[part] = np.where(num[part] > 0, products.max(axis=1), np.nan)
        return best


def _attribute_levels(
    profile: Profile, attributes: NDArray[np.float32], moment: NDArray[np.int64]
) -> dict[str, Floats]:
    """How much more than other users this one likes the candidates' attributes."""
    level, share, count = (values[moment] for values in profile.attributes)
    num = np.maximum(attributes.sum(axis=1), 1.0)
    has = attributes > 0
    none = ~has.any(axis=1)
    lowest = np.where(has, level, np.inf).min(axis=1, initial=np.inf)
    highest = np.where(has, level, -np.inf).max(axis=1, initial=-np.inf)
    return {
        "pair_attribute_level_mean": (attributes * level).sum(axis=1) / num,
        "pair_attribute_level_min": np.where(none, 0.0, lowest),
        "pair_attribute_level_max": np.where(none, 0.0, highest),
        "pair_attribute_share": (attributes * share).sum(axis=1) / num,
        "pair_attribute_log_count": np.log1p((attributes * count).sum(axis=1) / num),
    }


def schema_digest(names: Sequence[str]) -> str:
    """Digest of the column names; equal for matrices with the same columns."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def column_names(catalogue: Catalogue, columns: ItemColumns = NO_COLUMNS) -> tuple[str, ...]:
    """Column names of the matrix, in order. A gap is the item's value less that of liked items."""
    flags = [f"attribute:{name}" for name in catalogue.attribute_names]
    facts = [f"{kind}:{name}" for kind in ("item", "gap") for name in columns.names]
    return (*_COMPUTED, *flags, *facts)


def _level(sums: Floats, first: NDArray[np.int64], end: NDArray[np.int64]) -> Floats:
    """(m,) mean residuals from ``first`` up to ``end``, shrunk towards 0."""
    return (sums[end] - sums[first]) / (end - first + LEVEL_PRIOR_ROWS)
