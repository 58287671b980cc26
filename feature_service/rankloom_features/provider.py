"""One user's features from the event log or from a history given inline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue, Item, ItemTraits
from rankloom_features.encoder import Encoder
from rankloom_features.events import Event, EventLog, History, history_of, known_events
from rankloom_features.tabular import (
    COLLABORATIVE,
    TabularFeatures,
    schema_digest,
    with_collaborative,
)


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

    def features(self, query: UserQuery) -> UserFeatures:
        """Features of one user; a user without events is cold, not an error."""
        return self.features_of_many([query])[0]

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries; vectors are encoded in one run."""
        events = [known_events(self._events_of(query), self.catalogue) for query in queries]
        histories = [history_of(rows, self.catalogue) for rows in events]
        candidates = [self.catalogue.traits_of(query.candidates) for query in queries]
        vectors, logits = self._encode(histories, candidates)
        return tuple(
            UserFeatures(
                vector=vector,
                epoch=self.encoder.epoch,
                cold=not rows,
                events=rows,
                log_position=self.log.position,
                tabular=self._matrix(history, own, row),
                schema_digest=self.schema_digest,
            )
            for rows, history, own, vector, row in zip(
                events, histories, candidates, vectors, logits, strict=True
            )
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
        self, history: History, candidates: ItemTraits, logits: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        matrix = self._tabular.matrix(history, candidates)
        num = len(candidates.index)
        return with_collaborative(matrix, logits[:num], candidates.index >= 0)

    def _events_of(self, query: UserQuery) -> tuple[Event, ...]:
        if query.history is not None:
            return query.history
        return self.log.events_of(query.user_id or "")
