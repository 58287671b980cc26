"""The asyncio client of FeatureService."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom._feature_messages import (
    build_batch_request,
    build_features_request,
    parse_features,
)
from rankloom._features import FeatureQuery, UserFeatures
from rankloom._results import Event, Item
from rankloom.aio._connection import AsyncConnection
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
        timeout_s: float | None = None,
    ) -> UserFeatures:
        """Return the features of one user, as `FeatureClient.user_features`."""
        query = FeatureQuery(user=user, history=history, items=items)
        (features,) = await self._get(build_features_request(query), timeout_s)
        return features

    async def user_features_batch(
        self, queries: Sequence[FeatureQuery], *, timeout_s: float | None = None
    ) -> tuple[UserFeatures, ...]:
        """Return the features of many users, in the order of the queries, with one call."""
        return await self._get(build_batch_request(queries), timeout_s)

    async def _get(
        self, request: features_pb2.GetUserFeaturesRequest, timeout_s: float | None
    ) -> tuple[UserFeatures, ...]:
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = await self._stub.GetUserFeatures(request, timeout=limit_s)
        return parse_features(request, response)
