"""FeatureService: serves a provider's features to other processes.

It raises exceptions; the server around it turns them into statuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import grpc

from rankloom_features.provider import UserFeatures, UserQuery
from rankloom_features.wire import features_to_wire, parse_users
from rankloom_proto.v1 import features_pb2, features_pb2_grpc

SERVICE_NAME = features_pb2.DESCRIPTOR.services_by_name["FeatureService"].full_name


class Provider(Protocol):
    """A source of features: one FeatureProvider, or the active revision's."""

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features of each query, in order."""
        ...


class FeatureService(features_pb2_grpc.FeatureServiceServicer):
    """Serves one provider on an asyncio server."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def GetUserFeatures(
        self,
        request: features_pb2.GetUserFeaturesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> features_pb2.GetUserFeaturesResponse:
        """Features of each user, in order. Raises InvalidFieldError."""
        return await asyncio.to_thread(self._answer, request)

    def _answer(
        self, request: features_pb2.GetUserFeaturesRequest
    ) -> features_pb2.GetUserFeaturesResponse:
        found = self._provider.features_of_many(parse_users(request))
        return features_pb2.GetUserFeaturesResponse(features=map(features_to_wire, found))
