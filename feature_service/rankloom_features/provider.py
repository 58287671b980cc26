"""One user's features from the event log or from a history given inline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.encoder import Encoder
from rankloom_features.events import Event, EventLog, history_of, known_events
from rankloom_features.scorer import Scorer
from rankloom_features.tabular import (
    COLLABORATIVE,
    Profile,
    TabularFeatures,
    schema_digest,
    with_collaborative,
)

MAX_KEPT_USERS = 4096  # some kilobytes each


@dataclass(frozen=True, slots=True)
class UserQuery:
    """Whose features, and for which candidates. Exactly one of the first two is set."""

    user_id: str | None
    history: tuple[Event, ...] | None
    candidates: tuple[Item, ...] = ()


class HistoryVersion:
    """Stands for a user's past: for the same one as long as it is the same."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True, eq=False)
class UserFeatures:
    """Features of one user.

    ``past``: of which all but the last two are made; what else is made of it can be kept
    by it. ``vector``: (dim,) float32 in the space that ``feature_version`` names.
    ``cold_start``: nothing was known.
    ``events``: those whose items the catalogue knows, oldest first.
    ``tabular``: (candidates, columns) float32, NaN where a value is not known.
    """

    past: HistoryVersion
    vector: NDArray[np.float32]
    feature_version: str
    cold_start: bool
    events: tuple[Event, ...]
    log_position: int
    tabular: NDArray[np.float32]
    schema_digest: str


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
        names = (*tabular.names, COLLABORATIVE)
        self.schema_digest = schema_digest(names)
        self.num_columns = len(names)
        self.log = log
        self._tabular = tabular
        self._past_of = partial(_past_of, catalogue, encoder, tabular)
        # The log does not change, and who has asked will soon ask again.
        past_of_user = partial(_past_of_user, self._past_of, log)
        self._past_of_user = lru_cache(MAX_KEPT_USERS)(past_of_user)

    def features(self, query: UserQuery) -> UserFeatures:
        """Features of one user; a user without events is cold, not an error."""
        candidates = self.catalogue.traits_of(query.candidates)
        if query.history is not None:
            past = self._past_of(query.history)
        else:
            past = self._past_of_user(query.user_id or "")
        logits = self.scorer.logits(past.vector, candidates.index)
        return UserFeatures(
            past=past.key,
            vector=past.vector,
            feature_version=self.encoder.feature_version,
            cold_start=not past.events,
            events=past.events,
            log_position=self.log.position,
            tabular=with_collaborative(self._tabular.matrix(past.profile, candidates), logits),
            schema_digest=self.schema_digest,
        )

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries."""
        return tuple(map(self.features, queries))


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """A user's events whose items are known, and what is made of them alone."""

    key: HistoryVersion
    events: tuple[Event, ...]
    vector: NDArray[np.float32]
    profile: Profile


def _past_of(
    catalogue: Catalogue, encoder: Encoder, tabular: TabularFeatures, events: Sequence[Event]
) -> _Past:
    known = known_events(events, catalogue)
    history = history_of(known, catalogue)
    return _Past(HistoryVersion(), known, encoder.encode([history])[0], tabular.profile(history))


def _past_of_user(
    past_of: Callable[[Sequence[Event]], _Past], log: EventLog, user_id: str
) -> _Past:
    return past_of(log.events_of(user_id))
