"""Where a ranking's features come from, and whether an answer can be used.

Both sources have one interface; what they answer is checked in one place, since a
remote service may be of another version, or wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import grpc
import numpy as np

from rankloom_features.provider import FeatureProvider, UserFeatures, UserQuery
from rankloom_features.wire import features_from_wire, query_to_wire
from rankloom_proto.v1 import features_pb2, features_pb2_grpc
from rankloom_server.breaker import Breaker
from rankloom_server.errors import FeaturesUnavailableError
from rankloom_server.fallback import FallbackReason

if TYPE_CHECKING:
    from rankloom_adapters.revision import Revisions
    from rankloom_server.scoring import Served

# A millisecond of work: handing it to a thread and back would take a good part of that.
MAX_CANDIDATES_AT_ONCE = 32
# A service that missed a shorter slice than this has not shown that it is ill.
FAIR_SLICE_S = 0.02

_CHANNEL_OPTIONS: Final = (
    # gRPC's default waits up to two minutes before it looks again for a service that was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class FeatureSource(Protocol):
    """Answers one user's features."""

    async def get(self, query: UserQuery, timeout_s: float) -> UserFeatures:
        """Raises FeaturesUnavailableError where no answer comes in time."""
        ...

    async def close(self) -> None:
        """Gives back what the source holds."""
        ...


class EmbeddedFeatures:
    """Features computed in this process."""

    def __init__(self, provider: FeatureProvider) -> None:
        self.provider = provider

    async def get(self, query: UserQuery, timeout_s: float) -> UserFeatures:
        """Long lists run on a thread; one that is late runs on, but nobody waits for it."""
        if timeout_s > 0.0 and len(query.candidates) <= MAX_CANDIDATES_AT_ONCE:
            return self.provider.features(query)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                return await loop.run_in_executor(None, self.provider.features, query)
        except TimeoutError:
            raise FeaturesUnavailableError("timeout") from None

    async def close(self) -> None:
        """Nothing is held."""


class ActiveFeatures:
    """The features of whichever revision is active, for FeatureService."""

    def __init__(self, revisions: Revisions[Served]) -> None:
        self._revisions = revisions

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries, all by one revision."""
        with self._revisions.lease() as lease:
            source = cast("EmbeddedFeatures", lease.value.features)
            return source.provider.features_of_many(queries)


class RemoteFeatures:
    """Features of a FeatureService at ``target``, behind a breaker."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._stub = features_pb2_grpc.FeatureServiceStub(self._channel)
        self._breaker = Breaker()

    async def get(self, query: UserQuery, timeout_s: float) -> UserFeatures:
        """Asks the service, unless it has been failing."""
        if not self._breaker.allows():
            raise FeaturesUnavailableError("breaker_open")
        request = features_pb2.GetUserFeaturesRequest(users=[query_to_wire(query)])
        try:
            response = await self._stub.GetUserFeatures(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or timeout_s >= FAIR_SLICE_S:
                self._breaker.failed()
            raise FeaturesUnavailableError(error.code().name.lower()) from None
        self._breaker.succeeded()
        if len(response.features) != 1:
            raise FeaturesUnavailableError("malformed_answer")
        return features_from_wire(response.features[0])

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """What usable features look like: those that the bundle's models were fitted on."""

    feature_version: str
    dim: int
    schema_digest: str
    num_columns: int


def space_of(provider: FeatureProvider) -> FeatureSpace:
    """The space of the features that a bundle's own provider computes."""
    return FeatureSpace(
        feature_version=provider.encoder.feature_version,
        dim=provider.encoder.dim,
        schema_digest=provider.schema_digest,
        num_columns=provider.num_columns,
    )


def fault_of(
    features: UserFeatures, space: FeatureSpace, num_candidates: int
) -> FallbackReason | None:
    """What keeps an answer from being used in full; the gravest fault where there are several."""
    tabular = features.tabular
    if features.schema_digest != space.schema_digest:
        return FallbackReason.FEATURES_UNAVAILABLE
    # NaN stands for an unknown value; infinity stands for nothing.
    if tabular.shape != (num_candidates, space.num_columns) or np.isinf(tabular).any():
        return FallbackReason.FEATURES_UNAVAILABLE
    if features.feature_version != space.feature_version:
        return FallbackReason.FEATURE_VERSION_MISMATCH
    if features.vector.shape != (space.dim,) or not np.isfinite(features.vector).all():
        return FallbackReason.VECTOR_INVALID
    return None
