"""A user's events are answered on a port of their own, and on none by default."""

from __future__ import annotations

import grpc
import numpy as np

from rankloom_features.provider import UserQuery
from rankloom_features.wire import query_to_wire
from rankloom_proto.v1.features_pb2 import GetUserFeaturesRequest
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from server.rankings import known_user, rank, ranking_channel, request
from server.served_parts import ServedParts, ranking_server
from server.servers import failure_of, opened


def question(parts: ServedParts) -> GetUserFeaturesRequest:
    return GetUserFeaturesRequest(users=[query_to_wire(UserQuery(known_user(parts), None))])


async def test_the_ranking_port_does_not_answer_features(parts: ServedParts) -> None:
    async with ranking_channel(parts, reflection=True) as channel:
        failure = await failure_of(FeatureServiceStub(channel).GetUserFeatures(question(parts)))
        assert failure.code is grpc.StatusCode.UNIMPLEMENTED
        assert len((await rank(channel, request(parts))).items) == 5


async def test_a_port_of_its_own_answers_features_alone(parts: ServedParts) -> None:
    async with ranking_server(parts, features_port=0) as server:
        [(features, address)] = server.beside
        assert (address.host, address.port) == ("127.0.0.1", 0)
        async with (
            opened(server),
            opened(features) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            stub = FeatureServiceStub(channel)
            answer = await stub.GetUserFeatures(question(parts), timeout=10)
            vector = np.frombuffer(answer.features[0].vector, dtype="<f4")
            assert vector.shape == (parts.loaded.router.dim,)
            failure = await failure_of(rank(channel, request(parts)))
            assert failure.code is grpc.StatusCode.UNIMPLEMENTED
