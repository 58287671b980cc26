"""Stored explanations: the rationale that a bundle has of a user's own review of an item.

No language model takes part. A rationale is answered only while the user's history has the very
review that it is about. So after ForgetUser no revision answers with it, whatever its bundle holds.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rankloom_adapters.revision import Revisions
from rankloom_features.events import Event
from rankloom_features.provider import UserQuery
from rankloom_ranker.query import StoredQuery
from rankloom_ranker.stored_rationales import StoredRationale, newest_of_history
from rankloom_server.errors import NoStoredExplanationError
from rankloom_server.pipeline import RankPipeline, check_digest, without_fallback
from rankloom_server.revision_loader import ServedRevision


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A stored rationale, the revision that has it, and the digest of all its rationales."""

    revision: int
    bundle_digest: str
    rationales_digest: str
    rationale: StoredRationale


class StoredExplanations:
    """Answers with what is stored in the revision in service. Used from one event loop."""

    def __init__(self, revisions: Revisions[ServedRevision], ranking: RankPipeline) -> None:
        self._revisions, self._ranking = revisions, ranking
        self.num_found = self.num_missing = 0

    async def explain(self, query: StoredQuery, deadline: float) -> StoredAnswer:
        """Answers one query; ``deadline`` is on time.monotonic's clock.

        Raises NoStoredExplanationError, UnreadableTablesError, UnknownRevisionError,
        FallbackRefusedError where the user's events cannot be had, or TimeoutError.
        """
        try:
            answer = await self._answer(query, deadline)
        except NoStoredExplanationError:
            self.num_missing += 1
            raise
        self.num_found += 1
        return answer

    async def _answer(self, query: StoredQuery, deadline: float) -> StoredAnswer:
        with self._revisions.lease(query.revision, query.user_id) as lease:
            check_digest(lease, query.bundle_digest)
            loaded = lease.value.loaded
            if loaded.rationales is None:
                raise NoStoredExplanationError("the revision's bundle has no stored explanations")
            find = loaded.rationales.find
            written = await asyncio.to_thread(find, query.user_id, query.item_id)
            events = await self._events(lease.value, query.user_id, deadline) if written else ()
            found = newest_of_history(written, query.item_id, events)
            if found is None:
                raise NoStoredExplanationError("no stored explanation of this user and item")
            return StoredAnswer(lease.number, loaded.digest, loaded.rationales.digest, found)

    async def _events(
        self, served: ServedRevision, user_id: str, deadline: float
    ) -> tuple[Event, ...]:
        with without_fallback():
            features, _ = await self._ranking.features(served, UserQuery(user_id, None), deadline)
            return features.events
