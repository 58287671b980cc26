"""Features of users: of the events in a store, or of histories given inline."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item, ItemTraits
from rankloom_features.encoder import Encoder
from rankloom_features.event_store.store import EventStore, LongHistoryError
from rankloom_features.events import (
    Event,
    History,
    known_history,
    without_each,
)
from rankloom_features.model_columns import REVIEW_RATING, model_columns, with_columns
from rankloom_features.review_ratings import ReviewRatings
from rankloom_features.review_vectors import NewestReviews
from rankloom_features.scorer import Scorer
from rankloom_features.tabular import Profile, TabularFeatures, schema_digest

# A millisecond of work: handing it to a thread and back would take a good part of that.
MAX_CANDIDATES_ON_LOOP = 32
MAX_EVENTS_ON_LOOP = 500
MAX_CACHED_USERS = 4096  # some kilobytes each, and their events
MAX_CACHED_EVENTS = 1_000_000  # of all cached users, 130 bytes each


@dataclass(frozen=True, slots=True)
class UserQuery:
    """Whose features, and for which candidates. Exactly one of the first two is set.

    ``ablate_newest``: also the features without one event, for each of the last so many.
    ``predict_ratings``: also the ratings that towers predict for the candidates. ``at``: when they
    are asked for, seconds since 1970; None: as the clock says. ``most_events``: a longer stored
    history is refused, since features of all its events would take too long here; None: none is.
    """

    user_id: str | None
    history: tuple[Event, ...] | None
    candidates: tuple[Item, ...] = ()
    ablate_newest: int = 0
    predict_ratings: bool = False
    at: float | None = None
    most_events: int | None = None


class HistoryVersion:
    """Identifies one state of a user's history: caches are keyed by it, by identity."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True, eq=False)
class UserFeatures:
    """Features of one user.

    ``history_version``: what else is computed from the history can be cached by it.
    ``vector``: (dim,) float32 in the space that ``feature_version`` names. ``cold_start``: no
    event of the user names a known item. ``events``: those whose items the catalogue knows,
    oldest first. ``stored_version``: the version of the history in the event store; None for an
    inline one. ``tabular``: (candidates, columns) float32, NaN where a value is not known.
    ``ablated``: the features without one of the newest events, in the order of these. ``user_id``:
    whose they are; None for an inline history. ``predicted_ratings``: (candidates,) float32, as
    ``ReviewRatings.ratings``; None where they were not asked for, or the bundle has no towers.
    ``at``: when ``tabular`` was computed, seconds since 1970; None for another process's.
    """

    history_version: HistoryVersion
    vector: NDArray[np.float32]
    feature_version: str
    cold_start: bool
    events: tuple[Event, ...]
    stored_version: int | None
    tabular: NDArray[np.float32]
    schema_digest: str
    ablated: tuple[UserFeatures, ...] = ()
    user_id: str | None = None
    predicted_ratings: NDArray[np.float32] | None = None
    at: float | None = None


def has_few_events(features: UserFeatures) -> bool:
    """Whether work that grows with the user's events may be done on the event loop."""
    return len(features.events) <= MAX_EVENTS_ON_LOOP


def max_on_loop(columns: Sequence[str]) -> int:
    """For how many candidates these columns may be computed on the event loop.

    Towers of reviews take longer, and may wait for the disk.
    """
    return 0 if REVIEW_RATING in columns else MAX_CANDIDATES_ON_LOOP


class FeatureProvider:
    """Computes features in this process. Safe from several threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        encoder: Encoder,
        scorer: Scorer,
        tabular: TabularFeatures,
        events: EventStore,
        ratings: ReviewRatings | None = None,
        rater: ReviewRatings | None = None,
    ) -> None:
        """``ratings``: those that are answered. ``rater``: those that are a column; None: none."""
        self.catalogue = catalogue
        self.encoder = encoder
        self.scorer = scorer
        self.columns = (*tabular.names, *model_columns(rates_reviews=rater is not None))
        self.schema_digest = schema_digest(self.columns)
        self.num_columns = len(self.columns)
        self.events = events
        self._tabular, self._ratings, self._rater = tabular, ratings or rater, rater
        self._users = _UserCache(MAX_CACHED_USERS, MAX_CACHED_EVENTS)
        self._no_candidates = catalogue.traits_of(())

    def features(self, query: UserQuery) -> UserFeatures:
        """Features of one user; a user without events is cold, not an error.

        Raises EventStoreError, LongHistoryError or UnreadableTablesError.
        """
        (found,) = self.features_of_many([query])
        return found

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries. Raises what ``features`` does."""
        encoded = self._encoded_users(queries)
        left = [
            without_each(user.events, query.ablate_newest)
            for query, user in zip(queries, encoded, strict=True)
        ]
        ablated = iter(self._encoded([(events, None) for each in left for events in each]))
        return tuple(
            self._answer(query, user, [next(ablated) for _ in each])
            for query, user, each in zip(queries, encoded, left, strict=True)
        )

    def with_candidates(self, features: UserFeatures, candidates: Sequence[Item]) -> UserFeatures:
        """The same features with the tabular rows of other candidates.

        They are of the same events, whatever was recorded since. ``features``: of any provider.
        """
        encoded = self._users.made(features)
        if encoded is None:
            (encoded,) = self._encoded([(features.events, features.stored_version)])
        now = time.time()
        tabular = self._matrix(encoded, self.catalogue.traits_of(candidates), now)
        return replace(features, tabular=tabular, schema_digest=self.schema_digest, at=now)

    def forget(self, user_id: str) -> None:
        """Drops what is kept of the user's events in memory."""
        self._users.drop(user_id)

    def _encoded_users(self, queries: Sequence[UserQuery]) -> list[_EncodedHistory]:
        """The histories of all queries; those that are not cached are encoded together."""
        num_forgotten = self._users.num_forgotten
        kept = [self._kept(query) for query in queries]
        missing = [query for query, each in zip(queries, kept, strict=True) if each is None]
        made = iter(self._encoded([self._history(query) for query in missing]))
        found = [each or next(made) for each in kept]
        for query, each in zip(queries, found, strict=True):
            if query.history is None:
                self._users.keep(query.user_id or "", each, num_forgotten)
        return found

    def _kept(self, query: UserQuery) -> _EncodedHistory | None:
        user_id = query.user_id or ""
        if query.history is not None or user_id not in self._users:
            return None
        found = self._users.get(user_id, self.events.version(user_id))
        if found and query.most_events is not None and len(found.events) > query.most_events:
            raise LongHistoryError
        return found

    def _history(self, query: UserQuery) -> tuple[Sequence[Event], int | None]:
        """The query's events, and their version in the store."""
        if query.history is not None:
            return query.history, None
        stored = self.events.history(query.user_id or "", most=query.most_events)
        return stored.events, stored.version

    def _encoded(
        self, histories: Sequence[tuple[Sequence[Event], int | None]]
    ) -> list[_EncodedHistory]:
        if not histories:
            return []
        known = [known_history(events, self.catalogue) for events, _ in histories]
        vectors = self.encoder.encode([array for _, array in known])
        return [
            _EncodedHistory(
                HistoryVersion(), version, own, array, vector, self._tabular, self._rater
            )
            for (_, version), (own, array), vector in zip(histories, known, vectors, strict=True)
        ]

    def _answer(
        self, query: UserQuery, user: _EncodedHistory, ablated: Sequence[_EncodedHistory]
    ) -> UserFeatures:
        items = query.candidates
        candidates = self.catalogue.traits_of(items) if items else self._no_candidates
        now = time.time() if query.at is None else query.at
        return self._features(
            user,
            candidates,
            now,
            ablated=tuple(self._features(each, candidates, now) for each in ablated),
            user_id=query.user_id,
            predicted_ratings=self._predicted(query, user.events),
        )

    def _predicted(self, query: UserQuery, events: tuple[Event, ...]) -> NDArray[np.float32] | None:
        if self._ratings is None or not query.predict_ratings or not query.candidates:
            return None
        item_ids = [item.item_id for item in query.candidates]
        return self._ratings.ratings(query.user_id, events, item_ids)

    def _features(
        self,
        encoded: _EncodedHistory,
        candidates: ItemTraits,
        now: float,
        *,
        ablated: tuple[UserFeatures, ...] = (),
        user_id: str | None = None,
        predicted_ratings: NDArray[np.float32] | None = None,
    ) -> UserFeatures:
        return UserFeatures(
            history_version=encoded.version,
            vector=encoded.vector,
            feature_version=self.encoder.feature_version,
            cold_start=not encoded.events,
            events=encoded.events,
            stored_version=encoded.stored_version,
            tabular=self._matrix(encoded, candidates, now),
            schema_digest=self.schema_digest,
            ablated=ablated,
            user_id=user_id,
            predicted_ratings=predicted_ratings,
            at=now,
        )

    def _matrix(
        self, encoded: _EncodedHistory, candidates: ItemTraits, now: float
    ) -> NDArray[np.float32]:
        if not len(candidates.index):  # the profile need not be computed
            return np.zeros((0, self.num_columns), np.float32)
        columns = [self.scorer.logits(encoded.vector, candidates.index)]
        if self._rater:
            ids = [self.catalogue.item_ids[at] if at >= 0 else "" for at in candidates.index]
            columns.insert(0, self._rater.with_known(encoded.reviews, encoded.events, ids))
        tabular = self._tabular.matrix(encoded.profile, candidates, now=now)
        return with_columns(tabular, columns)


@dataclass(frozen=True, eq=False)
class _EncodedHistory:
    """A user's events whose items are known, and what is computed from them alone."""

    version: HistoryVersion
    stored_version: int | None
    events: tuple[Event, ...]
    history: History
    vector: NDArray[np.float32]
    tabular: TabularFeatures
    rater: ReviewRatings | None

    @cached_property
    def reviews(self) -> NewestReviews:
        """Those of the events. Only where a column is made of them."""
        assert self.rater is not None
        return self.rater.known(None, self.events)

    @cached_property
    def profile(self) -> Profile:
        """What the columns of all candidates need of the user."""
        return self.tabular.profile(self.history)


class _UserCache:
    """The encoded histories of the users who were asked for last, one of each. Thread-safe."""

    def __init__(self, max_users: int, max_events: int) -> None:
        self._max_users, self._max_events = max_users, max_events
        self.num_forgotten = self.num_events = 0
        self._lock = Lock()
        self._kept: OrderedDict[str, _EncodedHistory] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._kept

    def get(self, user_id: str, version: int) -> _EncodedHistory | None:
        """The user's history, if what is kept is of this version."""
        with self._lock:
            found = self._kept.get(user_id)
            if found is None or found.stored_version != version:
                return None
            self._kept.move_to_end(user_id)
            return found

    def made(self, features: UserFeatures) -> _EncodedHistory | None:
        """What these features were made of, if it is still kept."""
        with self._lock:
            found = self._kept.get(features.user_id or "")
        return found if found and found.version is features.history_version else None

    def keep(self, user_id: str, encoded: _EncodedHistory, num_forgotten: int) -> None:
        """``num_forgotten``: before the history was read; the user may be forgotten since."""
        with self._lock:
            if num_forgotten != self.num_forgotten:
                return
            self._drop(user_id)
            self._kept[user_id] = encoded
            self.num_events += len(encoded.events)
            while len(self._kept) > self._max_users or self.num_events > self._max_events:
                self._drop(next(iter(self._kept)))

    def drop(self, user_id: str) -> None:
        with self._lock:
            self.num_forgotten += 1
            self._drop(user_id)

    def _drop(self, user_id: str) -> None:
        if (former := self._kept.pop(user_id, None)) is not None:
            self.num_events -= len(former.events)
