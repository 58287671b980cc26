"""Ratings that RecCoT's towers predict for a user's candidates, from vectors of reviews.

A user's review counts only while the user's events have it; so after ForgetUser the user is an
unknown one. What others wrote about an item belongs to the model, as its statistics do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rankloom_features.events import Event
from rankloom_features.review_vectors import NewestReviews, ReviewSource
from rankloom_features.sessions import open_session

MAX_CACHED_ITEMS: Final = 2048  # some kilobytes each
_INPUTS: Final = ("user", "item", "user_vectors", "user_mask", "item_vectors", "item_mask")


class ReviewRatingsError(ValueError):
    """The towers cannot be run on these vectors."""


class ReviewRatings:
    """The towers of one bundle. Safe from several threads."""

    def __init__(self, towers: bytes, reviews: ReviewSource) -> None:
        """``towers``: their ONNX program. Raises ReviewRatingsError."""
        try:
            self._session = open_session(towers)
        except Exception as error:  # onnxruntime raises many kinds
            raise ReviewRatingsError("the towers are not a program that can be run") from error
        self._reviews, self.origin = reviews, reviews.origin
        self._of_item = lru_cache(MAX_CACHED_ITEMS)(reviews.of_item)
        given = {each.name: each.shape for each in self._session.get_inputs()}
        if set(given) != set(_INPUTS):
            raise ReviewRatingsError("the program is not one of towers: its inputs differ")
        found, dim = given["user_vectors"][-1], reviews.origin.dim
        if found != dim:
            raise ReviewRatingsError(
                f"the towers read vectors of {found} numbers, the stored ones have {dim}; take "
                "both from one training, or from one `rankloom reccot attach`"
            )

    def ratings(
        self, user_id: str | None, events: Sequence[Event], item_ids: Sequence[str]
    ) -> NDArray[np.float32]:
        """(items,) predicted ratings on the scale of the reviews, about 1 to 5.

        NaN for an item of the events: the towers would see the very review that they predict.
        Raises UnreadableTablesError.
        """
        return self.with_known(self.known(user_id, events), events, item_ids)

    def known(self, user_id: str | None, events: Sequence[Event]) -> NewestReviews:
        """The user's reviews that are among the events. Raises UnreadableTablesError."""
        return self._reviews.of_history(user_id, events)

    def with_known(
        self, user: NewestReviews, events: Sequence[Event], item_ids: Sequence[str]
    ) -> NDArray[np.float32]:
        """As ``ratings``, of a user with these reviews."""
        found = self.predicted(user, item_ids)
        seen = {event.item_id for event in events}
        found[[item_id in seen for item_id in item_ids]] = np.nan
        return found

    def predicted(self, user: NewestReviews, item_ids: Sequence[str]) -> NDArray[np.float32]:
        """(items,) of a user with these reviews. Raises ReviewRatingsError for unknown codes."""
        items = [self._of_item(item_id) for item_id in item_ids]
        try:
            return np.array(self._session.run(None, self._inputs(user, items))[0], np.float32)
        except Exception as error:
            raise ReviewRatingsError(
                "the towers are of other users or items than the vectors; train them on the "
                "same reviews with `rankloom reccot towers`"
            ) from error

    def _inputs(
        self, user: NewestReviews, items: Sequence[NewestReviews]
    ) -> dict[str, NDArray[np.generic]]:
        user_vectors, user_mask = self._padded([user])
        item_vectors, item_mask = self._padded(items)
        return {
            "user": np.full(len(items), user.code, np.int64),
            "item": np.array([item.code for item in items], np.int64),
            "user_vectors": np.repeat(user_vectors, len(items), axis=0),
            "user_mask": np.repeat(user_mask, len(items), axis=0),
            "item_vectors": item_vectors,
            "item_mask": item_mask,
        }

    def _padded(
        self, rows: Sequence[NewestReviews]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(rows, most, dim) with the newest last, and (rows, most) where there is a review."""
        most, dim = self._reviews.origin.most, self._reviews.origin.dim
        vectors = np.zeros((len(rows), most, dim), np.float32)
        mask = np.zeros((len(rows), most), np.bool_)
        for row, newest in enumerate(rows):
            if num := min(len(newest.vectors), most):
                vectors[row, -num:], mask[row, -num:] = newest.vectors[-num:], True
        return vectors, mask
