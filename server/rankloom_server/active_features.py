"""The features of whichever revision is active, for FeatureService."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom_adapters.revision import Revisions
from rankloom_features.model_info import ModelInfo
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_server.revision_loader import ServedRevision


class ActiveFeatures:
    """Computes features with the bundle of the active revision."""

    def __init__(self, revisions: Revisions[ServedRevision]) -> None:
        self._revisions = revisions

    def features_of_many(
        self, queries: Sequence[UserQuery], feature_version: str | None = None
    ) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries, all by one revision. Raises FeatureVersionError."""
        with self._revisions.lease() as lease:
            return lease.value.loaded.features.features_of_many(queries, feature_version)

    def model_info(self) -> ModelInfo:
        """The active revision's feature model."""
        with self._revisions.lease() as lease:
            return lease.value.loaded.features.info

    def forget(self, user_id: str) -> None:
        """Drops what is cached of the user."""
        with self._revisions.lease() as lease:
            lease.value.loaded.provider.forget(user_id)
