"""The values that go into FeatureService and come out of it; none of them is a wire type."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankloom._results import Event, Item


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureQuery:
    """A user for `FeatureClient.user_features_batch`: give exactly one of `user` and `history`.

    `items`: candidates; with them, the answer has their tabular features.
    `predict_ratings`: also the ratings that the server's towers predict for them.
    `max_events`: answer at most so many of the newest events; None: all.
    """

    user: str | None = None
    history: Sequence[Event] | None = None
    items: Sequence[str | Item] = ()
    predict_ratings: bool = False
    max_events: int | None = None


@dataclass(frozen=True, slots=True)
class TabularFeatures:
    """Features of the user together with each candidate, for a tree model.

    `rows`: one for each candidate, in the order of the query; NaN where a value is unknown.
    `schema_digest`: of the columns' names and meaning. Compare rows of one digest only.
    """

    rows: tuple[tuple[float, ...], ...]
    schema_digest: str


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """What FeatureService knows about a user.

    `vector`: the latent vector; float32 values.
    `feature_version`: of the model that made the vector. Compare vectors of one version only.
    `cold_start`: True if no event of the user names a known item; then the vector means nothing.
    `events`: the user's events with known items, oldest first; the newest `max_events` of them.
    `history_version`: of the stored events that the answer has seen: 0 for none, and larger after
    each change; None if the query had a history of its own.
    `history_age_s`: seconds since the newest event; None if no event has a time.
    `tabular`: None if the query had no candidates.
    `predicted_ratings`: one for each candidate, on the scale of the reviews, NaN for an item of the
    user's events; None if they were not asked for, or the server's bundle has no towers.
    """

    vector: tuple[float, ...]
    feature_version: str
    cold_start: bool
    events: tuple[Event, ...]
    history_version: int | None
    history_age_s: float | None
    tabular: TabularFeatures | None
    predicted_ratings: tuple[float, ...] | None = None
