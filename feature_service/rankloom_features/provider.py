"""One user's features from the event log or from a history given inline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item, ItemTraits
from rankloom_features.encoder import Encoder
from rankloom_features.events import (
    Event,
    EventLog,
    history_of,
    known_events,
    without_each,
)
from rankloom_features.scorer import Scorer
from rankloom_features.tabular import (
    COLLABORATIVE,
    Profile,
    TabularFeatures,
    schema_digest,
    with_collaborative,
)

MAX_CACHED_USERS = 4096  # some kilobytes each


@dataclass(frozen=True, slots=True)
class UserQuery:
    """Whose features, and for which candidates. Exactly one of the first two is set.

    ``ablate_newest``: also the features without one event, for each of the last so many.
    """

    user_id: str | None
    history: tuple[Event, ...] | None
    candidates: tuple[Item, ...] = ()
    ablate_newest: int = 0


class HistoryVersion:
    """Identifies one state of a user's history: caches are keyed by it, by identity."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True, eq=False)
class UserFeatures:
    """Features of one user.

    ``history_version``: what else is computed from the history can be cached by it.
    ``vector``: (dim,) float32 in the space that ``feature_version`` names. ``cold_start``: no
    event of the user names a known item. ``events``: those whose items the catalogue knows,
    oldest first. ``stored_version``: that of the user's history in the event store, None for an
    inline history. ``tabular``: (candidates, columns) float32, NaN where a value is not known.
    ``ablated``: the features without one of the newest events, in the order of these.
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


class FeatureProvider:
    """Computes features in this process. Immutable; safe from several threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        log: EventLog,
        encoder: Encoder,
        scorer: Scorer,
        tabular: TabularFeatures,
    ) -> None:
        self.catalogue = catalogue
        self.encoder = encoder
        self.scorer = scorer
        self.columns = (*tabular.names, COLLABORATIVE)
        self.schema_digest = schema_digest(self.columns)
        self.num_columns = len(self.columns)
        self.log = log
        self._tabular = tabular
        self._encoded = partial(_encoded, catalogue, encoder, tabular)
        # The log does not change, and a user's next request often comes soon.
        encoded_user = partial(_encoded_user, self._encoded, log)
        self._encoded_user = lru_cache(MAX_CACHED_USERS)(encoded_user)

    def features(self, query: UserQuery) -> UserFeatures:
        """Features of one user; a user without events is cold, not an error."""
        candidates = self.catalogue.traits_of(query.candidates)
        if query.history is not None:
            encoded = self._encoded(query.history)
        else:
            encoded = self._encoded_user(query.user_id or "")
        return replace(
            self._features(encoded, candidates),
            stored_version=self._stored_version(query),
            ablated=tuple(
                self._features(self._encoded(events), candidates)
                for events in without_each(encoded.events, query.ablate_newest)
            ),
        )

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries."""
        return tuple(map(self.features, queries))

    def forget(self, user_id: str) -> None:
        """Drops what is cached of the user."""
        self._encoded_user.cache_clear()

    def _stored_version(self, query: UserQuery) -> int | None:
        return None if query.history is not None else len(self.log.events_of(query.user_id or ""))

    def _features(self, encoded: _EncodedHistory, candidates: ItemTraits) -> UserFeatures:
        logits = self.scorer.logits(encoded.vector, candidates.index)
        return UserFeatures(
            history_version=encoded.version,
            vector=encoded.vector,
            feature_version=self.encoder.feature_version,
            cold_start=not encoded.events,
            events=encoded.events,
            stored_version=None,
            tabular=with_collaborative(self._tabular.matrix(encoded.profile, candidates), logits),
            schema_digest=self.schema_digest,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _EncodedHistory:
    """A user's events whose items are known, and what is computed from them alone."""

    version: HistoryVersion
    events: tuple[Event, ...]
    vector: NDArray[np.float32]
    profile: Profile


def _encoded(
    catalogue: Catalogue, encoder: Encoder, tabular: TabularFeatures, events: Sequence[Event]
) -> _EncodedHistory:
    known = known_events(events, catalogue)
    history = history_of(known, catalogue)
    vector, profile = encoder.encode([history])[0], tabular.profile(history)
    return _EncodedHistory(HistoryVersion(), known, vector, profile)


def _encoded_user(
    encoded: Callable[[Sequence[Event]], _EncodedHistory], log: EventLog, user_id: str
) -> _EncodedHistory:
    return encoded(log.events_of(user_id))
