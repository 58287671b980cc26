"""The features of the live revisions, for FeatureService: by default those of the active one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from rankloom_adapters.revision import Revisions, UnknownRevisionError
from rankloom_features.model_info import FeatureVersionError, ModelInfo
from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_server.revision_loader import ServedRevision


class ActiveFeatures:
    """Computes features with the bundle of the active revision, or of a live one by version."""

    def __init__(self, revisions: Revisions[ServedRevision]) -> None:
        self._revisions = revisions

    def features_of_many(
        self, queries: Sequence[UserQuery], feature_version: str | None = None
    ) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries, all by one revision.

        ``feature_version``: of any revision that takes requests. Raises FeatureVersionError.
        """
        for number in self._numbers():
            with suppress(UnknownRevisionError), self._revisions.lease(number) as lease:
                features = lease.value.loaded.features
                if feature_version in (None, features.info.feature_version):
                    return features.features_of_many(queries)
        raise FeatureVersionError

    def model_info(self) -> ModelInfo:
        """The active revision's feature model."""
        with self._revisions.lease() as lease:
            return lease.value.loaded.features.info

    def forget(self, user_id: str) -> None:
        """Drops what is cached of the user, in every revision; on the event loop.

        Cached prefixes have no user's name, so all of them go.
        """
        for served in self._revisions.values:
            served.loaded.provider.forget(user_id)
            served.engine.forget_prefixes()

    def _numbers(self) -> Iterator[int]:
        """The revisions that take requests, the active one first."""
        traffic = self._revisions.traffic
        yield traffic.active
        yield from sorted((traffic.revisions | traffic.pinnable) - {traffic.active})
