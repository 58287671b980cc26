"""A running client finds servers that are added to a name, and no call fails for it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from cases.name_server import NameServer
from rankloom import AsyncFeatureClient
from rankloom_proto.v1.features_pb2 import (
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    UserFeatures,
)
from rankloom_server.config import ServerSettings
from server.servers import behaving_server

CALL_S = 0.02
FIRST, ADDED = "127.0.0.1", "127.0.0.2"


async def test_an_added_server_gets_calls_and_none_fails() -> None:
    calls = {FIRST: 0, ADDED: 0}

    async def start(stack: AsyncExitStack, host: str, port: int) -> int:
        async def answer(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
            await asyncio.sleep(CALL_S)
            calls[host] += 1
            return GetUserFeaturesResponse(features=[UserFeatures()])

        server = behaving_server(answer, max_in_flight=32, connection_age_s=0.5)
        port = await server.start(host, port)
        stack.push_async_callback(server.grpc.stop, None)
        await server.open()
        return port

    async with AsyncExitStack() as stack:
        port = await start(stack, FIRST, 0)
        names = stack.enter_context(NameServer([FIRST]))
        target = f"dns://{names.target}/ranking.test:{port}"
        client = await stack.enter_async_context(AsyncFeatureClient(target, plaintext=True))

        async def call_until_added() -> None:
            while not calls[ADDED]:
                await client.user_features(user="u", timeout_s=5)

        callers = [asyncio.create_task(call_until_added()) for _ in range(8)]
        await asyncio.sleep(0.2)
        await start(stack, ADDED, port)
        names.addresses = [FIRST, ADDED]
        async with asyncio.timeout(30):
            await asyncio.gather(*callers)  # raises what any call raised
    assert calls[FIRST] > 100


def test_the_ages_add_up_to_less_than_two_minutes() -> None:
    age_s = ServerSettings().connection_age_s * 1.1  # with gRPC's variation
    assert age_s + 5 < 120  # a name is looked up again after 5 s at the earliest
