"""An asyncio client may be made anywhere, and each event loop that uses it has its own channel."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from client_sdk.recording_server import RecordingServer, tell, wait
from rankloom import (
    AsyncClient,
    AsyncFeatureClient,
    AsyncRolloutClient,
    CallCancelledError,
    ClientClosedError,
)


async def rank(client: AsyncClient) -> str:
    return (await client.rank(["a", "b"], user="u")).items[0].item_id


def test_a_client_made_outside_any_loop_serves_one_loop_after_another() -> None:
    with RecordingServer() as server:
        client = AsyncClient(server.target, timeout_s=10)
        assert [asyncio.run(rank(client)) for _ in range(3)] == ["b", "b", "b"]
        server.will(tell("good ", "film"))

        async def explain() -> str:
            return (await client.explain("a", user="u").result()).text

        assert asyncio.run(explain()) == "good film"
        asyncio.run(client.close())


def test_loops_of_several_threads_share_a_client() -> None:
    answers: list[str] = []
    with RecordingServer() as server:
        client = AsyncClient(server.target, timeout_s=10)
        work = [
            threading.Thread(target=lambda: answers.append(asyncio.run(rank(client))))
            for _ in range(4)
        ]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
    assert answers == ["b"] * 4


def test_the_channel_of_a_loop_that_ended_is_closed() -> None:
    with RecordingServer() as server:
        before = num_channels()
        client = AsyncClient(server.target, timeout_s=10)
        for _ in range(3):
            asyncio.run(rank(client))
        assert num_channels() == before + 1
        asyncio.run(client.close())


def num_channels() -> int:
    """Asyncio channels in memory; gRPC closes one when it leaves."""
    gc.collect()
    names = (f"{type(each).__module__}.{type(each).__name__}" for each in gc.get_objects())
    return sum(name == "grpc.aio._channel.Channel" for name in names)


@pytest.mark.parametrize("kind", [AsyncClient, AsyncFeatureClient, AsyncRolloutClient])
def test_every_asyncio_client_may_be_made_outside_a_loop(
    kind: type[AsyncClient | AsyncFeatureClient | AsyncRolloutClient],
) -> None:
    client = kind("127.0.0.1:1")
    asyncio.run(client.close())


def test_a_call_outside_any_loop_says_so() -> None:
    client = AsyncClient("127.0.0.1:1")
    with pytest.raises(RuntimeError, match=r"inside a running event loop"):
        client.explain("a", user="u")


def test_closing_in_one_loop_ends_the_calls_of_all() -> None:
    failures: list[BaseException] = []
    with RecordingServer() as server:
        server.will(wait(30.0))
        client = AsyncClient(server.target, timeout_s=20)

        def call() -> None:
            try:
                asyncio.run(rank(client))
            except (CallCancelledError, ClientClosedError) as error:
                failures.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        while not server.received:
            threading.Event().wait(0.01)
        asyncio.run(client.close())
        thread.join(10)
        assert [type(failure) for failure in failures] == [CallCancelledError]
        with pytest.raises(ClientClosedError):
            asyncio.run(rank(client))
