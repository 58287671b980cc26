"""Answers that are no message, as of another server on the port: an error of the SDK each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from rankloom import (
    Client,
    EventsNotRecordedError,
    FeatureClient,
    RolloutClient,
    ServerError,
    UserEvent,
)
from rankloom.aio import AsyncClient, AsyncEventRecorder, AsyncFeatureClient, AsyncRolloutClient

if TYPE_CHECKING:  # generic in the stubs only
    Handler = grpc.GenericRpcHandler
    MethodHandler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler, MethodHandler = grpc.GenericRpcHandler, grpc.RpcMethodHandler
STREAMS = ("Explain", "Watch")
EVENT = UserEvent(user="42", item_id="x", liked=True)
Call = Callable[[Any, Any, Any], Any]  # clients of rankings, features and rollouts
CALLS: dict[str, Call] = {
    "rank": lambda ranking, _, __: ranking.rank(["a"], user="42"),
    "retrieve": lambda ranking, _, __: ranking.retrieve(2, user="42"),
    "recommend": lambda ranking, _, __: ranking.recommend(2, user="42"),
    "explain": lambda ranking, _, __: ranking.explain("a", user="42").result(),
    "features": lambda _, features, __: features.user_features(user="42"),
    "record": lambda _, features, __: features.record_events([EVENT]),
    "forget": lambda _, features, __: features.forget_user("42"),
    "info": lambda _, features, __: features.model_info(),
    "list": lambda _, __, rollouts: rollouts.list(),
    "get": lambda _, __, rollouts: rollouts.get(1),
}


class Garbage(Handler):
    """Answers every method with bytes that no message begins with."""

    def __init__(self) -> None:
        self.num_calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> MethodHandler:
        def answer(*_: object) -> bytes:
            self.num_calls += 1
            return b"\xff\xff\xff\xff"

        if details.method.rpartition("/")[2] in STREAMS:
            return grpc.unary_stream_rpc_method_handler(lambda *_: iter([answer()]))
        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def garbage() -> Garbage:
    return Garbage()


@pytest.fixture
def target(garbage: Garbage) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[garbage])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
async def test_the_asyncio_clients(call: Call, target: str) -> None:
    async with (
        AsyncClient(target) as ranking,
        AsyncFeatureClient(target) as features,
        AsyncRolloutClient(target) as rollouts,
    ):
        made: Awaitable[object] = call(ranking, features, rollouts)
        with pytest.raises(ServerError, match="cannot be read"):
            await made


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_the_blocking_clients(call: Call, target: str) -> None:
    with (
        Client(target) as ranking,
        FeatureClient(target) as features,
        RolloutClient(target) as rollouts,
        pytest.raises(ServerError),
    ):
        call(ranking, features, rollouts)


async def test_watching(target: str) -> None:
    async with AsyncRolloutClient(target) as rollouts:
        with pytest.raises(ServerError, match="cannot be read"):
            await anext(rollouts.watch())


async def test_a_recorder_goes_on(target: str, garbage: Garbage) -> None:
    async with AsyncFeatureClient(target) as features:
        recorder = AsyncEventRecorder(features, max_age_s=0.01)
        await recorder.record(EVENT)
        async with asyncio.timeout(20):
            while garbage.num_calls < 2:
                await asyncio.sleep(0.01)
        with pytest.raises(EventsNotRecordedError) as caught:
            await recorder.close(0.1)
    assert [event.item_id for event in caught.value.events] == [EVENT.item_id]
    assert isinstance(caught.value.__cause__, ServerError)
