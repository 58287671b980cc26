"""From a bundle's bytes to a feature provider."""

from __future__ import annotations

import numpy as np
import safetensors.numpy

from rankloom_features.catalogue import Catalogue
from rankloom_features.encoder import Encoder
from rankloom_features.event_store.store import EventStore
from rankloom_features.item_columns import NO_COLUMNS, ItemColumns
from rankloom_features.item_statistics import ItemStatistics
from rankloom_features.provider import FeatureProvider
from rankloom_features.review_ratings import ReviewRatings
from rankloom_features.scorer import scorer_from_bytes
from rankloom_features.tabular import TabularFeatures
from rankloom_features.user_model import UserModel


class StatisticsError(ValueError):
    """The item statistics are unreadable or belong to another catalogue."""


def provider_from_bytes(
    *,
    catalogue: bytes,
    encoder: bytes,
    item_vectors: bytes,
    item_statistics: bytes,
    events: EventStore,
    user_model: bytes | None = None,
    item_columns: bytes | None = None,
    attribute_columns: bytes | None = None,
    ratings: ReviewRatings | None = None,
    rater: ReviewRatings | None = None,
) -> FeatureProvider:
    """A provider from its parts. ``user_model``, ``item_columns``: None for a bundle without them.

    ``events``: where the histories of user ids are. ``attribute_columns``: None where the
    catalogue says it. ``ratings``, ``rater``: None for a bundle without such towers.

    Raises CatalogueError, EncoderError, StatisticsError, UserModelError or
    ItemColumnsError, all ValueErrors.
    """
    items = Catalogue.from_bytes(catalogue, attribute_columns)
    model = Encoder(encoder)
    model.check_num_items(len(items))
    scorer = scorer_from_bytes(model, item_vectors, len(items))
    statistics = statistics_from_bytes(item_statistics, len(items))
    columns = ItemColumns.from_bytes(item_columns, len(items)) if item_columns else NO_COLUMNS
    users = UserModel.from_bytes(user_model, len(items)) if user_model else None
    tabular = TabularFeatures(items, statistics, users, columns)
    return FeatureProvider(items, model, scorer, tabular, events, ratings, rater)


def statistics_to_bytes(statistics: ItemStatistics) -> bytes:
    """safetensors."""
    arrays = {
        "rows": statistics.rows,
        "likes": statistics.likes,
        "co_liking": statistics.co_liking,
        "co_rating": statistics.co_rating,
    }
    if statistics.co_session is not None:
        arrays["co_session"] = statistics.co_session
    given = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(safetensors.numpy.save(given))


def statistics_from_bytes(data: bytes, num_items: int) -> ItemStatistics:
    """Reads what ``statistics_to_bytes`` wrote. Raises StatisticsError."""
    try:
        statistics = ItemStatistics(**safetensors.numpy.load(data))
    except Exception as error:  # safetensors' own class is not exported
        raise StatisticsError("item statistics: cannot be read") from error
    _check(statistics, num_items)
    return statistics


def _check(statistics: ItemStatistics, num_items: int) -> None:
    counts = statistics.rows, statistics.likes
    every = statistics.co_liking, statistics.co_rating, statistics.co_session
    factors = [array for array in every if array is not None]
    if any(array.shape[:1] != (num_items,) for array in (*counts, *factors)):
        raise StatisticsError("item statistics: of another catalogue")
    if any(array.ndim != 1 for array in counts) or any(array.ndim != 2 for array in factors):
        raise StatisticsError("item statistics: counts must be vectors, factors matrices")
    if not all(np.isfinite(array).all() for array in (*counts, *factors)):
        raise StatisticsError("item statistics: a value is NaN or infinite")
