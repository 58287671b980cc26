"""The asyncio client of FeatureService."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom._event_messages import (
    build_forget_request,
    build_record_request,
    parse_model_info,
    parse_positions,
)
from rankloom._events import ModelInfo, UserEvent
from rankloom._feature_messages import (
    build_batch_request,
    build_features_request,
    parse_features,
)
from rankloom._features import FeatureQuery, UserFeatures
from rankloom._results import Event, Item
from rankloom.aio._connection import AsyncConnection, readable
from rankloom_proto.v1 import features_pb2, features_pb2_grpc


class AsyncFeatureClient(AsyncConnection):
    """Gets the features of users, from any event loop.

        async with AsyncFeatureClient("localhost:50051") as client:
            features = await client.user_features(user="42", items=["318", "50"])

    The arguments are those of `FeatureClient`.
    """

    @property
    def _stub(self) -> features_pb2_grpc.FeatureServiceAsyncStub:
        return self._stub_of(features_pb2_grpc.FeatureServiceStub)

    async def user_features(
        self,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        items: Sequence[str | Item] = (),
        predict_ratings: bool = False,
        max_events: int | None = None,
        feature_version: str | None = None,
        timeout_s: float | None = None,
    ) -> UserFeatures:
        """Return the features of one user, as `FeatureClient.user_features`."""
        query = FeatureQuery(
            user=user,
            history=history,
            items=items,
            predict_ratings=predict_ratings,
            max_events=max_events,
        )
        (features,) = await self._get(build_features_request(query, feature_version), timeout_s)
        return features

    async def user_features_batch(
        self,
        queries: Sequence[FeatureQuery],
        *,
        feature_version: str | None = None,
        timeout_s: float | None = None,
    ) -> tuple[UserFeatures, ...]:
        """Return the features of many users, in the order of the queries, with one call."""
        return await self._get(build_batch_request(queries, feature_version), timeout_s)

    async def record_events(
        self, events: Sequence[UserEvent], *, timeout_s: float | None = None
    ) -> tuple[int, ...]:
        """Record events, as `FeatureClient.record_events`."""
        request = build_record_request(events)
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = await self._stub.RecordEvents(request, timeout=limit_s)
        return parse_positions(request, readable(response))

    async def forget_user(self, user: str, *, timeout_s: float | None = None) -> int:
        """Remove all events of a user, as `FeatureClient.forget_user`."""
        request = build_forget_request(user)
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = await self._stub.ForgetUser(request, timeout=limit_s)
        return readable(response).num_events

    async def model_info(self, *, timeout_s: float | None = None) -> ModelInfo:
        """Return which feature model serves now, and what its features are."""
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = await self._stub.GetModelInfo(
                features_pb2.GetModelInfoRequest(), timeout=limit_s
            )
        return parse_model_info(readable(response))

    async def _get(
        self, request: features_pb2.GetUserFeaturesRequest, timeout_s: float | None
    ) -> tuple[UserFeatures, ...]:
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = await self._stub.GetUserFeatures(request, timeout=limit_s)
        return parse_features(request, readable(response))
