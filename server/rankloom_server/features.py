"""Where a ranking's features come from.

Both sources have one interface, and `usable_features` checks both: a remote service may have
another version, or a fault.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import grpc

from rankloom_features.event_store.store import EventStoreError
from rankloom_features.provider import FeatureProvider, UserFeatures, UserQuery
from rankloom_features.wire import features_from_wire, query_to_wire
from rankloom_proto.v1 import features_pb2, features_pb2_grpc
from rankloom_ranker.fallback import FallbackReason
from rankloom_ranker.features import FeatureSpace, fault_of
from rankloom_ranker.ranking import MAX_CANDIDATES_ON_LOOP
from rankloom_server import logs
from rankloom_server.breaker import Breaker
from rankloom_server.errors import FeaturesUnavailableError

# A service that missed a shorter slice than this has not shown that it is ill.
FAIR_SLICE_S = 0.02

_CHANNEL_OPTIONS: Final = (
    # The service is this server's own: a proxy of the environment is meant for other machines.
    ("grpc.enable_http_proxy", 0),
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
        """Long lists run on a thread; a late one is left to finish without a waiter."""
        is_short = len(query.candidates) <= MAX_CANDIDATES_ON_LOOP and not query.ablate_newest
        try:
            if timeout_s > 0.0 and is_short:
                return self.provider.features(query)
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(None, self.provider.features, query)
        except TimeoutError:
            raise FeaturesUnavailableError("timeout") from None
        except EventStoreError as error:
            logs.note(reason=str(error))
            raise FeaturesUnavailableError("events_unreadable") from None

    async def close(self) -> None:
        """Nothing is held."""


class RemoteFeatures:
    """Features of a FeatureService at ``target``, behind a breaker."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._stub = features_pb2_grpc.FeatureServiceStub(self._channel)
        self._breaker = Breaker()

    async def get(self, query: UserQuery, timeout_s: float) -> UserFeatures:
        """Calls the service, unless the breaker is open."""
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
        await self._channel.close()


async def usable_features(
    source: FeatureSource, space: FeatureSpace, query: UserQuery, timeout_s: float
) -> tuple[UserFeatures, FallbackReason | None]:
    """A user's features, and why the vector cannot be used, if it cannot.

    Raises FeaturesUnavailableError where nothing usable comes in time.
    """
    features = await source.get(query, timeout_s)
    fault = fault_of(features, space, len(query.candidates))
    if fault is FallbackReason.FEATURES_UNAVAILABLE:
        raise FeaturesUnavailableError("tabular_invalid")
    return features, fault


async def ablated_features(
    source: FeatureSource, space: FeatureSpace, query: UserQuery, timeout_s: float
) -> tuple[UserFeatures, ...]:
    """The features without each of the ``query.ablate_newest`` last events.

    Raises FeaturesUnavailableError where nothing usable comes in time.
    """
    ablated = (await source.get(query, timeout_s)).ablated
    if any(fault_of(each, space, len(query.candidates)) for each in ablated):
        raise FeaturesUnavailableError("ablated_invalid")
    return ablated
