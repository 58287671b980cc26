"""Where a ranking's features come from.

Both sources have one interface, and `usable_features` checks both: a remote service may have
another version, or a fault.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import grpc

from rankloom_features.bundled_tables import UnreadableTablesError
from rankloom_features.catalogue import Item
from rankloom_features.event_store.store import EventStoreError, LongHistoryError
from rankloom_features.model_info import FeatureVersionError
from rankloom_features.provider import (
    MAX_EVENTS_ON_LOOP,
    FeatureProvider,
    UserFeatures,
    UserQuery,
    has_few_events,
    max_on_loop,
)
from rankloom_features.wire import features_from_wire, query_to_wire
from rankloom_proto.v1 import features_pb2, features_pb2_grpc
from rankloom_ranker.fallback import FallbackReason
from rankloom_ranker.features import FeatureSpace, fault_of
from rankloom_server import logs
from rankloom_server.breaker import Breaker
from rankloom_server.errors import FeaturesUnavailableError

if TYPE_CHECKING:
    from rankloom_proto.v1.features_pb2_grpc import FeatureServiceAsyncStub

# A service that missed a shorter slice than this has not shown that it is ill.
FAIR_SLICE_S = 0.02
LATE = 0.08  # of a slice: a busy machine notices its end so much later
COOLDOWN_S = 1.0  # between two probes of a service that failed
MAX_PROBE_S = 2.0
LAST_CALLS_S = 60.0  # for calls that are still on a connection that was given up

_CHANNEL_OPTIONS: Final = (
    # The service is this server's own: a proxy of the environment is meant for other machines.
    ("grpc.enable_http_proxy", 0),
    # gRPC's default waits up to two minutes before it looks again for a service that was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Otherwise a new channel takes the connection of the former one.
    ("grpc.use_local_subchannel_pool", 1),
    # Otherwise a user of 100,000 events has no features, and opens the breaker for all others.
    ("grpc.max_receive_message_length", -1),
)
_PROBE: Final = features_pb2.GetUserFeaturesRequest(
    users=[features_pb2.UserQuery(history=features_pb2.History())]
)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRead:
    """One user's features as they were read; None where nothing usable came in time.

    ``fault``: why their vector cannot be used, if it cannot.
    """

    features: UserFeatures | None
    fault: FallbackReason | None = None

    async def with_candidates(
        self, provider: FeatureProvider, candidates: Sequence[Item]
    ) -> FeatureRead:
        """The same read, with the tabular rows of these candidates.

        Long lists and histories run on a thread.
        """
        if self.features is None:
            return self
        is_short = len(candidates) <= max_on_loop(provider.columns)
        if is_short and has_few_events(self.features):
            features = provider.with_candidates(self.features, candidates)
        else:
            features = await asyncio.to_thread(provider.with_candidates, self.features, candidates)
        return replace(self, features=features)


class FeatureSource(Protocol):
    """Answers one user's features."""

    async def get(
        self, query: UserQuery, timeout_s: float, feature_version: str | None = None
    ) -> UserFeatures:
        """Raises FeaturesUnavailableError where no answer comes in time.

        ``feature_version``: the one that is wanted. Where the source has none of it, the features
        are of its own.
        """
        ...

    async def close(self) -> None:
        """Gives back what the source holds."""
        ...


class EmbeddedFeatures:
    """Features computed in this process."""

    def __init__(self, provider: FeatureProvider) -> None:
        self.provider = provider

    async def get(
        self, query: UserQuery, timeout_s: float, feature_version: str | None = None
    ) -> UserFeatures:
        """Long lists and histories run on a thread; a late one finishes without a waiter."""
        is_short = (
            len(query.candidates) <= max_on_loop(self.provider.columns)
            and len(query.history or ()) <= MAX_EVENTS_ON_LOOP
            and not query.ablate_newest
        )
        try:
            if timeout_s > 0.0 and is_short:
                with suppress(LongHistoryError):
                    return self.provider.features(replace(query, most_events=MAX_EVENTS_ON_LOOP))
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(None, self.provider.features, query)
        except TimeoutError:
            raise FeaturesUnavailableError("timeout") from None
        except (EventStoreError, UnreadableTablesError) as error:
            logs.note(reason=str(error))
            what = "events" if isinstance(error, EventStoreError) else "reviews"
            raise FeaturesUnavailableError(f"{what}_unreadable") from None

    async def close(self) -> None:
        """Nothing is held."""


class RemoteFeatures:
    """Features of a FeatureService at ``target``, behind a breaker. Use it from one event loop.

    While the breaker is open, probes go on new connections beside the calls, so that no call waits
    for a service that is away, and a connection that leads nowhere is given up.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = _channel_to(target)
        self._breaker = Breaker()
        self._recoveries: set[asyncio.Task[None]] = set()

    async def get(
        self, query: UserQuery, timeout_s: float, feature_version: str | None = None
    ) -> UserFeatures:
        """Calls the service, unless the breaker is open; twice where it lacks the version."""
        end = time.monotonic() + timeout_s
        asked = features_pb2.GetUserFeaturesRequest(
            users=[query_to_wire(query)], feature_version=feature_version
        )
        try:
            response = await self._answer(asked, timeout_s)
        except FeatureVersionError:
            asked.ClearField("feature_version")
            response = await self._answer(asked, end - time.monotonic())
        if len(response.features) != 1:
            raise FeaturesUnavailableError("malformed_answer")
        features = features_from_wire(response.features[0])
        if not _are_of(features, query):
            raise FeaturesUnavailableError("other_user")
        return features

    async def close(self) -> None:
        """Ends probes and the connection."""
        for task in tuple(self._recoveries):
            task.cancel()
        await asyncio.gather(*self._recoveries, return_exceptions=True)
        await self._channel.close()

    async def _answer(
        self, request: features_pb2.GetUserFeaturesRequest, timeout_s: float
    ) -> features_pb2.GetUserFeaturesResponse:
        """Raises FeatureVersionError too, which says nothing against the service."""
        if self._breaker.is_open:
            raise FeaturesUnavailableError("breaker_open")
        wait_s = (1.0 - LATE) * timeout_s
        try:
            response = await _stub(self._channel).GetUserFeatures(request, timeout=wait_s)
        except grpc.aio.AioRpcError as error:
            is_refusal = error.code() is grpc.StatusCode.FAILED_PRECONDITION
            if is_refusal and request.HasField("feature_version"):
                raise FeatureVersionError from None
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or timeout_s >= FAIR_SLICE_S:
                self._failed(timeout_s)
            raise FeaturesUnavailableError(error.code().name.lower()) from None
        if response is None:  # so gRPC's asyncio says that the bytes are no message
            self._failed(timeout_s)
            raise FeaturesUnavailableError("malformed_answer")
        self._breaker.succeeded()
        return response

    def _failed(self, timeout_s: float) -> None:
        if self._breaker.failed():
            task = asyncio.create_task(self._recover(min(timeout_s, MAX_PROBE_S)))
            self._recoveries.add(task)
            task.add_done_callback(self._recoveries.discard)

    async def _recover(self, timeout_s: float) -> None:
        """Probes until the service answers; then calls go on the probe's connection."""
        while self._breaker.is_open:
            await asyncio.sleep(COOLDOWN_S)
            channel = await _probed(self._target, timeout_s)
            if channel is not None:
                former, self._channel = self._channel, channel
                self._breaker.succeeded()
                await former.close(LAST_CALLS_S)


async def _probed(target: str, timeout_s: float) -> grpc.aio.Channel | None:
    """A new connection on which the service has answered; None if it did not."""
    with suppress(grpc.aio.AioRpcError):
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(_channel_to(target))
            if await _stub(channel).GetUserFeatures(_PROBE, timeout=timeout_s) is not None:
                stack.pop_all()
                return channel
    return None


def _channel_to(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)


def _stub(channel: grpc.aio.Channel) -> FeatureServiceAsyncStub:
    return features_pb2_grpc.FeatureServiceStub(channel)


def _are_of(features: UserFeatures, query: UserQuery) -> bool:
    """Whether features are of the user that was asked about, as far as they show it.

    By the user's id; for an inline history, each event must stand in it, in this order.
    """
    if features.user_id != query.user_id:
        return False
    given = iter([(event.item_id, event.liked) for event in query.history or ()])
    known = () if query.history is None else features.events
    return all((event.item_id, event.liked) in given for event in known)


async def usable_features(
    source: FeatureSource, space: FeatureSpace, query: UserQuery, timeout_s: float
) -> tuple[UserFeatures, FallbackReason | None]:
    """A user's features, and why the vector cannot be used, if it cannot.

    Raises FeaturesUnavailableError where nothing usable comes in time.
    """
    features = await source.get(query, timeout_s, space.feature_version)
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
    ablated = (await source.get(query, timeout_s, space.feature_version)).ablated
    if any(fault_of(each, space, len(query.candidates)) for each in ablated):
        raise FeaturesUnavailableError("ablated_invalid")
    return ablated
