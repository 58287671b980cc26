"""FeatureService: the provider's features for other processes.

Errors leave as exceptions; the server that it runs in turns them into statuses.
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
    """What features come from: one FeatureProvider, or whichever is in service."""

    def features_of_many(self, queries: Sequence[UserQuery]) -> tuple[UserFeatures, ...]:
        """Features in the order of the queries."""
        ...


class FeatureService(features_pb2_grpc.FeatureServiceServicer):
    """Answers from one provider; runs on an asyncio server."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def GetUserFeatures(
        self,
        request: features_pb2.GetUserFeaturesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> features_pb2.GetUserFeaturesResponse:
        """Features of each user. Raises InvalidFieldError."""
        return await asyncio.to_thread(self._answer, request)

    def _answer(
        self, request: features_pb2.GetUserFeaturesRequest
    ) -> features_pb2.GetUserFeaturesResponse:
        found = self._provider.features_of_many(parse_users(request))
        return features_pb2.GetUserFeaturesResponse(features=map(features_to_wire, found))
