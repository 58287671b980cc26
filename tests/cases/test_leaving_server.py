"""A server that leaves while others serve under the same address costs no call."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from cases.service_address import ServiceAddress
from rankloom import AsyncFeatureClient
from rankloom_proto.v1.features_pb2 import (
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    UserFeatures,
)
from rankloom_server.rpc.lifecycle import RpcServer
from server.servers import behaving_server

CALL_S, LONG_CALL_S = 0.02, 1.0
LONG = "a user whose call is long"


def server_of(name: str) -> RpcServer:
    """Answers with its name as the feature version."""

    async def answer(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        await asyncio.sleep(LONG_CALL_S if request.users[0].user_id == LONG else CALL_S)
        return GetUserFeaturesResponse(features=[UserFeatures(feature_version=name)])

    return behaving_server(answer, max_in_flight=32)


async def test_callers_move_on_while_the_last_call_of_the_old_server_runs() -> None:
    answered = Counter[str]()
    leaving, staying = server_of("leaving"), server_of("staying")
    service = ServiceAddress(await leaving.start("127.0.0.1", 0))
    other = await staying.start("127.0.0.1", 0)
    await leaving.open()
    await staying.open()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(service.listening())
        stack.push_async_callback(staying.grpc.stop, None)
        client = await stack.enter_async_context(AsyncFeatureClient(address, timeout_s=10))

        async def call_until(end: asyncio.Event) -> None:
            while not end.is_set():
                answered[(await client.user_features(user="u")).feature_version] += 1

        left = asyncio.Event()
        callers = [asyncio.create_task(call_until(left)) for _ in range(4)]
        long = asyncio.create_task(client.user_features(user=LONG))
        await asyncio.sleep(0.2)
        service.port = other
        await leaving.drain(5)
        left.set()
        await asyncio.gather(*callers)  # raises what any call raised
        assert (await long).feature_version == "leaving"
    assert answered["leaving"]
    assert answered["staying"]
