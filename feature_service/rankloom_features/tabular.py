"""Tabular features of a user and a candidate: the input of the trees and of one soft token.

They are computed only from statistics of the training rows and from the events that are
passed in, so that serving and training share one definition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, ItemTraits
from rankloom_features.events import History

MEAN_PRIOR_ROWS = 10.0  # an item's or attribute's mean starts with this many average rows
LEVEL_PRIOR_ROWS = 5.0
YEAR_SCALE = 6.0
RECENT_EVENTS = (5, 20)

_ITEM = ("item_log_count", "item_mean", "item_year")
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
COLLABORATIVE = "collaborative_logit"  # the last column of the trees' input
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
        COLLABORATIVE,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class ItemStatistics:
    """Statistics of each item in the training rows.

    ``rows`` and ``likes``: (items,) float32 counts. ``co_liking`` and ``co_rating``: (items, k)
    float32 factors. The inner product of two items' factors measures how often they are liked
    together, or rated above average together.
    """

    rows: NDArray[np.float32]
    likes: NDArray[np.float32]
    co_liking: NDArray[np.float32]
    co_rating: NDArray[np.float32]

    @property
    def overall_mean(self) -> float:
        """Share of liked rows; 0.5 without rows."""
        return float((self.likes.sum() + 0.5) / (self.rows.sum() + 1.0))

    @property
    def mean(self) -> NDArray[np.float32]:
        """(items,) share of liked rows, smoothed towards the overall mean."""
        likes = self.likes + MEAN_PRIOR_ROWS * self.overall_mean
        return (likes / (self.rows + MEAN_PRIOR_ROWS)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The part of the features that depends on the user's events alone.

    ``values``: the user's own columns. ``residual``: (n,) label of each event less its item's
    mean and the user's level; ``year``: (n,) of its item. ``attributes``: level, share and count
    of each attribute, (A,). ``together``: four vectors (k,) of item factors: the mean over liked
    items, the mean over the last liked ones, the sum over all items weighted by label less item
    mean, and the sum weighted by centred residual; NaN without events. ``liked``: (m,) catalogue
    indices.
    """

    values: Mapping[str, float]
    residual: NDArray[np.float32]
    year: NDArray[np.float32]
    attributes: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]
    together: tuple[NDArray[np.floating], ...]
    liked: NDArray[np.int64]


class TabularFeatures:
    """Computes the feature matrix from a set of item statistics. Immutable."""

    def __init__(self, catalogue: Catalogue, statistics: ItemStatistics) -> None:
        self._traits = catalogue.traits
        self._mean = statistics.mean
        self._co_liking = np.ascontiguousarray(statistics.co_liking)
        self._co_rating = np.ascontiguousarray(statistics.co_rating)
        self._log_count = np.log1p(statistics.rows)
        self._overall = statistics.overall_mean
        weight = statistics.rows / max(float(statistics.rows.sum()), 1.0)
        self._attribute_share = weight @ self._traits.attributes
        self.names = column_names(catalogue)
        self.schema_digest = schema_digest(self.names)

    def profile(self, history: History) -> Profile:
        values = self._user(history)
        plain = history.liked - self._mean[history.index]
        residual = (plain - values["user_level"]).astype(np.float32)
        return Profile(
            values=values,
            residual=residual,
            year=self._traits.year[history.index],
            attributes=self._attributes(history, residual),
            together=self._together(history, plain, residual),
            liked=history.index[history.liked],
        )

    def matrix(self, profile: Profile, candidates: ItemTraits) -> NDArray[np.float32]:
        """(n, len(names)) float32 for n candidates; NaN where a value is unknown."""
        known = candidates.index >= 0
        index = np.where(known, candidates.index, 0)
        mean = np.where(known, self._mean[index], np.float32(self._overall))
        log_count = np.where(known, self._log_count[index], np.float32(0.0))
        pair = self._pair(profile, candidates, mean, log_count)
        item = {"item_log_count": log_count, "item_mean": mean, "item_year": candidates.year}
        columns: dict[str, NDArray[np.floating] | float] = {**item, **profile.values, **pair}
        matrix = np.empty((len(candidates.index), len(self.names)), np.float32)
        for column, name in enumerate(_COMPUTED):
            matrix[:, column] = columns[name]
        matrix[:, len(_COMPUTED) :] = candidates.attributes
        return matrix

    def _user(self, history: History) -> dict[str, float]:
        """The user's own columns."""
        liked, mean = history.liked, self._mean[history.index]
        log_count, year = self._log_count[history.index], self._traits.year[history.index]
        residual = liked - mean
        dislikes = np.flatnonzero(~liked)
        known = int(dislikes[-1]) + 1 if len(dislikes) else 0
        levels = {f"user_level_last_{n}": _level(residual[-n:]) for n in RECENT_EVENTS}
        return levels | {
            "user_log_liked": float(np.log1p(liked.sum())),
            "user_log_disliked": float(np.log1p(len(dislikes))),
            "user_level": _level(residual),
            "user_level_before_last_dislike": _level(residual[:known]),
            "user_likes_since_dislike": float(np.log1p(len(liked) - known)),
            "user_liked_item_mean": _mean(mean[liked]),
            "user_disliked_item_mean": _mean(mean[dislikes]),
            "user_liked_log_count": _mean(log_count[liked]),
            "user_liked_year": _nanmean(year[liked]),
        }

    def _attributes(
        self, history: History, residual: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
        """Level, share and count of each attribute, see Profile."""
        own = self._traits.attributes[history.index]
        count = own.sum(axis=0)
        level = (residual @ own) / (count + LEVEL_PRIOR_ROWS)
        liked = own[history.liked].sum(axis=0)
        average = MEAN_PRIOR_ROWS * self._attribute_share
        share = (liked + average) / (history.liked.sum() + MEAN_PRIOR_ROWS) - self._attribute_share
        return level, share, count

    def _together(
        self, history: History, plain: NDArray[np.float32], residual: NDArray[np.float32]
    ) -> tuple[NDArray[np.floating], ...]:
        """Factors to multiply with those of the candidates, see Profile."""
        liked = self._co_liking[history.index[history.liked]]
        rated = self._co_rating[history.index]
        none = np.full(liked.shape[1], np.nan, dtype=np.float32)
        liking = [
            rows.mean(axis=0) if len(rows) else none for rows in (liked, liked[-RECENT_LIKES:])
        ]
        if not len(history):
            return *liking, np.full(rated.shape[1], np.nan), np.full(rated.shape[1], np.nan)
        return *liking, plain @ rated, (residual - residual.mean()) @ rated

    def _pair(
        self,
        profile: Profile,
        candidates: ItemTraits,
        mean: NDArray[np.float32],
        log_count: NDArray[np.float32],
    ) -> dict[str, NDArray[np.floating]]:
        """The columns of user and candidate."""
        user = profile.values
        year_level = _year_level(profile, candidates.year)
        attributes = _attribute_levels(profile, candidates.attributes)
        expected = mean + user["user_level"] + attributes["pair_attribute_level_mean"] + year_level
        return (
            attributes
            | self._co_columns(profile, candidates.index)
            | {
                "pair_year_gap": candidates.year - user["user_liked_year"],
                "pair_year_level": year_level,
                "pair_log_count_gap": log_count - user["user_liked_log_count"],
                "pair_item_mean_gap": mean - user["user_liked_item_mean"],
                "pair_expected": expected,
            }
        )

    def _co_columns(
        self, profile: Profile, index: NDArray[np.int64]
    ) -> dict[str, NDArray[np.floating]]:
        """How well the candidates match the items that the user liked and rated."""
        names = [name for name in _PAIR if name.startswith("pair_co_")]
        values = np.full((len(names), len(index)), np.nan, dtype=np.float32)
        known = index >= 0
        if known.any():
            liking, rating = self._co_liking[index[known]], self._co_rating[index[known]]
            liked, lately, rated, lifted = profile.together
            num = len(profile.residual) + LEVEL_PRIOR_ROWS
            values[0, known] = _products(liking, liked)
            if len(profile.liked):
                each = _all_products(liking, self._co_liking[profile.liked])
                values[1, known] = each.max(axis=1)
            values[2, known] = _products(liking, lately)
            values[3, known] = _products(rating, rated) / num
            values[4, known] = _products(rating, lifted) / num
        return dict(zip(names, values, strict=True))


def _attribute_levels(
    profile: Profile, attributes: NDArray[np.float32]
) -> dict[str, NDArray[np.floating]]:
    """How much more than other users this one likes the candidates' attributes."""
    level, share, count = profile.attributes
    num = np.maximum(attributes.sum(axis=1), 1.0)
    has = attributes > 0
    none = ~has.any(axis=1)
    lowest = np.where(has, level, np.inf).min(axis=1, initial=np.inf)
    highest = np.where(has, level, -np.inf).max(axis=1, initial=-np.inf)
    return {
        "pair_attribute_level_mean": _products(attributes, level) / num,
        "pair_attribute_level_min": np.where(none, 0.0, lowest),
        "pair_attribute_level_max": np.where(none, 0.0, highest),
        "pair_attribute_share": _products(attributes, share) / num,
        "pair_attribute_log_count": np.log1p(_products(attributes, count) / num),
    }


def _year_level(profile: Profile, year: NDArray[np.float32]) -> NDArray[np.float32]:
    """The user's level among items from about the candidate's year."""
    gap = np.abs(year[:, None] - profile.year[None, :])
    near = np.fmax(np.exp(-gap / YEAR_SCALE), np.float32(0.0))  # 0 for an unknown year
    level = _products(near, profile.residual) / (near.sum(axis=1) + LEVEL_PRIOR_ROWS)
    return np.asarray(level, np.float32)


def with_collaborative(
    matrix: NDArray[np.float32], logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The matrix (n, columns) with the collaborative logits (n,) as last column.

    A logit is NaN for an item that the model does not know.
    """
    joined = np.empty((len(matrix), matrix.shape[1] + 1), np.float32)
    joined[:, :-1] = matrix
    joined[:, -1] = logits
    return joined


def schema_digest(names: Sequence[str]) -> str:
    """Digest of the column names; equal for matrices with the same columns."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def column_names(catalogue: Catalogue) -> tuple[str, ...]:
    """Column names of the matrix, in order."""
    flags = tuple(f"attribute:{name}" for name in catalogue.attribute_names)
    return (*_COMPUTED, *flags)


# In a plain matrix product the rounding of a row depends on the number of rows. In these two it
# does not, so that a candidate has the same features alone as among others.


def _products(rows: NDArray[np.floating], vector: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n,) inner products of rows (n, k) with one vector (k,)."""
    return np.asarray((rows * vector).sum(axis=1))


def _all_products(rows: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n, m) inner products of rows (n, k) with others (m, k), one row at a time."""
    return np.asarray((others @ rows[:, :, None])[:, :, 0])


def _level(residual: NDArray[np.floating]) -> float:
    return float(residual.sum() / (len(residual) + LEVEL_PRIOR_ROWS))


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.sum() / len(values)) if len(values) else float("nan")


def _nanmean(values: NDArray[np.floating]) -> float:
    return _mean(values[~np.isnan(values)])
