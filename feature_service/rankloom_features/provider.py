"""One user's features from the event log or from a history given inline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item, ItemTraits
from rankloom_features.encoder import Encoder
from rankloom_features.events import Event, EventLog, History, history_of, known_events
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


@dataclass(frozen=True, slots=True, eq=False)
class UserFeatures:
    """Features of one user.

    ``vector``: (dim,) float32 in the space that ``epoch`` names. ``cold``: nothing was
    known. ``events``: those whose items the catalogue knows, oldest first.
    ``tabular``: (candidates, columns) float32, NaN where a value is not known.
    """

    vector: NDArray[np.float32]
    epoch: str
    cold: bool
    events: tuple[Event, ...]
    log_position: int
    tabular: NDArray[np.float32]
    schema_digest: str


class FeatureProvider:
    """Computes features in this process. Immutable; safe from several threads."""

    def __init__(
        self, catalogue: Catalogue, log: EventLog, encoder: Encoder, tabular: TabularFeatures
    ) -> None:
        self.catalogue = catalogue
        self.encoder = encoder
        names = (*tabular.names, COLLABORATIVE)
        self.schema_digest = schema_digest(names)
        self.num_columns = len(names)
        self.log = log
        self._tabular = tabular
        # The log does not change, and who has asked will soon ask again.
        past_of_user = partial(_past_of_user, catalogue, tabular, log)
        self._past_of_user = lru_cache(MAX_KEPT_USERS)(past_of_user)

    def features(self, query: UserQuery) -> UserFeatures:
        """Features of one user; a user without events is cold, not an error."""
        return self.features_of_many([query])[0]

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries; vectors are encoded in one run."""
        pasts = [self._past_of(query) for query in queries]
        candidates = [self.catalogue.traits_of(query.candidates) for query in queries]
        vectors, logits = self._encode([past.history for past in pasts], candidates)
        return tuple(
            UserFeatures(
                vector=vector,
                epoch=self.encoder.epoch,
                cold=not past.events,
                events=past.events,
                log_position=self.log.position,
                tabular=self._matrix(past.profile, own, row),
                schema_digest=self.schema_digest,
            )
            for past, own, vector, row in zip(pasts, candidates, vectors, logits, strict=True)
        )

    def _encode(
        self, histories: Sequence[History], candidates: Sequence[ItemTraits]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors, and logits of each user's candidates, padded to the longest list."""
        longest = max((len(own.index) for own in candidates), default=0)
        places = np.zeros((len(histories), max(longest, 1)), dtype=np.int64)
        for row, own in zip(places, candidates, strict=True):
            row[: len(own.index)] = own.index + 1
        return self.encoder.encode_and_score(histories, places)

    def _matrix(
        self, profile: Profile, candidates: ItemTraits, logits: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        matrix = self._tabular.matrix(profile, candidates)
        num = len(candidates.index)
        return with_collaborative(matrix, logits[:num], candidates.index >= 0)

    def _past_of(self, query: UserQuery) -> _Past:
        if query.history is not None:
            return _past(self.catalogue, self._tabular, query.history)
        return self._past_of_user(query.user_id or "")


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """A user's events whose items are known, and what is made of them alone."""

    events: tuple[Event, ...]
    history: History
    profile: Profile


def _past(catalogue: Catalogue, tabular: TabularFeatures, events: Sequence[Event]) -> _Past:
    known = known_events(events, catalogue)
    history = history_of(known, catalogue)
    return _Past(known, history, tabular.profile(history))


def _past_of_user(
    catalogue: Catalogue, tabular: TabularFeatures, log: EventLog, user_id: str
) -> _Past:
    return _past(catalogue, tabular, log.events_of(user_id))
