"""The SDK's client of FeatureService against a server with a real bundle."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from rankloom import AsyncFeatureClient, Event, FeatureQuery, InvalidRequestError
from rankloom_proto.v1.features_pb2 import Candidate, GetUserFeaturesRequest, UserQuery
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from server.rankings import item_ids, known_user
from server.served_parts import ServedParts, ranking_server
from server.servers import opened


async def test_the_client_reads_what_the_server_knows(parts: ServedParts) -> None:
    user, items = known_user(parts), item_ids(parts, 3)
    query = UserQuery(user_id=user, candidates=[Candidate(item_id=each) for each in items])
    async with (
        ranking_server(parts, features_port=0) as server,
        opened(server),
        opened(server.beside[0][0]) as target,
        AsyncFeatureClient(target) as client,
        grpc.aio.insecure_channel(target) as channel,
    ):
        found = await client.user_features(user=user, items=items)
        stub = FeatureServiceStub(channel)
        response = await stub.GetUserFeatures(GetUserFeaturesRequest(users=[query]), timeout=10)
        history = [Event(items[0], liked=True)]
        many = await client.user_features_batch(
            [FeatureQuery(user=user, items=items), FeatureQuery(history=history)]
        )
        stranger = await client.user_features(history=[])
        with pytest.raises(InvalidRequestError) as caught:
            await client.user_features(user="")
    (sent,) = response.features
    assert found.vector
    assert np.array_equal(np.array(found.vector, np.float32), np.frombuffer(sent.vector, "<f4"))
    assert found.tabular is not None
    matrix = np.frombuffer(sent.tabular.values, "<f4").reshape(len(items), -1)
    assert np.array_equal(np.array(found.tabular.rows, np.float32), matrix, equal_nan=True)
    assert found.tabular.schema_digest == sent.tabular.schema_digest
    assert (found.feature_version, found.cold_start) == (sent.feature_version, False)
    assert found.events
    assert many[0].vector == found.vector
    assert (many[1].events, many[1].tabular) == (tuple(history), None)
    assert stranger.cold_start
    assert caught.value.violations[0].field == "users[0].user_id"
