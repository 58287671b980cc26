"""FeatureService: serves features, and the events that they are computed from, to other processes.

It raises exceptions; the server around it turns them into statuses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import grpc

from rankloom_features.event_store.store import EventStore, LongHistoryError
from rankloom_features.event_wire import parse_events, parse_forgotten
from rankloom_features.events import Event
from rankloom_features.model_info import ModelInfo
from rankloom_features.provider import (
    MAX_EVENTS_ON_LOOP,
    UserFeatures,
    UserQuery,
    max_on_loop,
)
from rankloom_features.wire import parse_users, parse_version, write_features
from rankloom_proto.v1 import features_pb2, features_pb2_grpc

SERVICE_NAME = features_pb2.DESCRIPTOR.services_by_name["FeatureService"].full_name


class Provider(Protocol):
    """A source of features: one bundle's, or the live revisions'. Safe from several threads."""

    def features_of_many(
        self, queries: Sequence[UserQuery], feature_version: str | None = None
    ) -> tuple[UserFeatures, ...]:
        """Features of each query, in order, all by one model: the one that serves now, if no
        version is given. Raises FeatureVersionError."""
        ...

    def model_info(self) -> ModelInfo:
        """The model that serves now."""
        ...

    def forget(self, user_id: str) -> None:
        """Drops what is cached of the user, whose events are gone already; on the event loop."""
        ...


class FeatureService(features_pb2_grpc.FeatureServiceServicer):
    """Serves one provider and one event store on an asyncio server.

    ``clock``: seconds since 1970. The counts are since the start, for metrics.
    """

    def __init__(
        self, provider: Provider, store: EventStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._provider, self._store, self._clock = provider, store, clock
        self.num_recorded = self.num_forgotten = 0

    async def GetUserFeatures(
        self,
        request: features_pb2.GetUserFeaturesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> features_pb2.GetUserFeaturesResponse:
        """Features of each user, in order. Raises InvalidFieldError or FeatureVersionError."""
        if _is_short(request, max_on_loop(self._provider.model_info().columns)):
            with suppress(LongHistoryError):
                return self._features(request, MAX_EVENTS_ON_LOOP)
        return await asyncio.to_thread(self._features, request)

    async def RecordEvents(
        self,
        request: features_pb2.RecordEventsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> features_pb2.RecordEventsResponse:
        """Stores events before it answers. Raises InvalidFieldError or EventStoreError."""
        positions = await asyncio.to_thread(self._stored, request, self._clock())
        self.num_recorded += len(positions)
        return features_pb2.RecordEventsResponse(positions=positions)

    async def ForgetUser(
        self,
        request: features_pb2.ForgetUserRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> features_pb2.ForgetUserResponse:
        """Removes a user's events. Raises InvalidFieldError or EventStoreError."""
        user_id = parse_forgotten(request)
        num_events = await asyncio.to_thread(self._store.forget, user_id)
        # After the events: a cache filled in between would otherwise hold them again.
        self._provider.forget(user_id)
        self.num_forgotten += 1
        return features_pb2.ForgetUserResponse(num_events=num_events)

    async def GetModelInfo(
        self,
        request: features_pb2.GetModelInfoRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> features_pb2.GetModelInfoResponse:
        """The model that serves now."""
        info = self._provider.model_info()
        return features_pb2.GetModelInfoResponse(
            kind=info.kind,
            dim=info.dim,
            feature_version=info.feature_version,
            num_items=info.num_items,
            columns=info.columns,
            schema_digest=info.schema_digest,
            like_above=info.like_above,
        )

    def _features(
        self, request: features_pb2.GetUserFeaturesRequest, most_events: int | None = None
    ) -> features_pb2.GetUserFeaturesResponse:
        users, feature_version = parse_users(request), parse_version(request)
        queries = [replace(each, most_events=most_events) for each in users]
        found = self._provider.features_of_many(queries, feature_version)
        response, now = features_pb2.GetUserFeaturesResponse(), self._clock()
        for user, each in zip(request.users, found, strict=True):
            message = response.features.add()
            write_features(_of_newest_events(each, user), message)
            if (age_s := _age_s(each.events, now)) is not None:
                message.history_age.FromNanoseconds(round(age_s * 1e9))
        return response

    def _stored(self, request: features_pb2.RecordEventsRequest, arrived: float) -> tuple[int, ...]:
        like_above = self._provider.model_info().like_above
        return self._store.append(parse_events(request, like_above, arrived))


def _is_short(request: features_pb2.GetUserFeaturesRequest, most: int) -> bool:
    """One stored user and at most so many candidates.

    The event loop answers for an embedded service too.
    """
    if len(request.users) != 1:
        return False
    user = request.users[0]
    is_plain = user.HasField("user_id") and not (user.ablate_newest or user.predict_ratings)
    return is_plain and len(user.candidates) <= most


def _of_newest_events(features: UserFeatures, user: features_pb2.UserQuery) -> UserFeatures:
    """With no more events than the query asks for."""
    num = len(features.events)
    if not user.HasField("max_events") or user.max_events >= num:
        return features
    return replace(features, events=features.events[num - user.max_events :])


def _age_s(events: Sequence[Event], now: float) -> float | None:
    times = [event.time for event in events if event.time is not None]
    return max(now - max(times), 0.0) if times else None
