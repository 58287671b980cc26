"""The features of whichever revision is active, for FeatureService."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom_adapters.revision import Revisions
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_server.revision_loader import ServedRevision


class ActiveFeatures:
    """Computes features with the active revision's bundle."""

    def __init__(self, revisions: Revisions[ServedRevision]) -> None:
        self._revisions = revisions

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries, all by one revision."""
        with self._revisions.lease() as lease:
            return lease.value.loaded.provider.features_of_many(queries)
