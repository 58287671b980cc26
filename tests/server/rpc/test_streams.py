"""The boundary around methods that answer with a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from rankloom_proto.v1.ranking_pb2 import ExplainRequest, ExplainResponse, ExplanationChunk
from rankloom_proto.v1.ranking_pb2_grpc import (
    RankingServiceServicer,
    RankingServiceStub,
    add_RankingServiceServicer_to_server,
)
from rankloom_ranker.errors import FallbackRefusedError
from rankloom_server.admission import Admission
from rankloom_server.rpc.lifecycle import RpcServer
from server.servers import failure_of, no_warm_up, opened

SYNTHETIC = "synthetic-secret"
METHOD = "/rankloom.v1.RankingService/Explain"
Telling = Callable[[], AsyncGenerator[str, None]]
Code = grpc.StatusCode

if TYPE_CHECKING:  # generic in the stubs only
    ExplainCall = grpc.aio.UnaryStreamCall[ExplainRequest, ExplainResponse]


class TellingService(RankingServiceServicer):
    def __init__(self, telling: Telling) -> None:
        self._telling = telling

    async def Rank(self, request: object, context: object) -> Any:  # noqa: ANN401
        raise AssertionError("only words are asked for here")

    async def Explain(
        self, request: ExplainRequest, context: object
    ) -> AsyncGenerator[ExplainResponse, None]:
        async for text in self._telling():
            yield ExplainResponse(chunk=ExplanationChunk(text=text))


@asynccontextmanager
async def connected(telling: Telling, *, max_in_flight: int = 8) -> AsyncIterator[grpc.aio.Channel]:
    server = RpcServer(Admission(max_in_flight), [], warm_up=no_warm_up, reflects=False)
    service = TellingService(telling)  # type: ignore[abstract]  # no other method is called
    add_RankingServiceServicer_to_server(service, server.grpc)
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        yield channel


def call(channel: grpc.aio.Channel) -> ExplainCall:
    return RankingServiceStub(channel).Explain(ExplainRequest(user_id=SYNTHETIC), timeout=10)


async def texts(stream: AsyncIterator[ExplainResponse]) -> list[str]:
    return [part.chunk.text async for part in stream]


def telling(*steps: str | Exception) -> Telling:
    async def tell() -> AsyncGenerator[str, None]:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            yield step

    return tell


async def test_a_stream_is_one_call_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async with connected(telling("a", "b")) as channel:
        assert await texts(aiter(call(channel))) == ["a", "b"]
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["method"], line["code"]) == ("call", METHOD, "OK")


async def test_an_empty_stream_is_an_answer() -> None:
    async with connected(telling()) as channel:
        assert await texts(aiter(call(channel))) == []


@pytest.mark.parametrize("words", [(), ("a", "b")], ids=["at once", "between answers"])
async def test_a_foreseen_error_has_its_status(words: tuple[str, ...]) -> None:
    async with connected(telling(*words, FallbackRefusedError("ENGINE_FAILED"))) as channel:
        stream = aiter(call(channel))
        assert [(await anext(stream)).chunk.text for _ in words] == list(words)
        failure = await failure_of(texts(stream))
    assert (failure.code, failure.reason) == (Code.FAILED_PRECONDITION, "FALLBACK_REFUSED")
    assert failure.metadata == {"fallback_reason": "ENGINE_FAILED"}


async def test_an_unforeseen_error_is_masked_and_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with connected(telling("a", KeyError(SYNTHETIC))) as channel:
        stream = aiter(call(channel))
        await anext(stream)
        failure = await failure_of(texts(stream))
    assert (failure.code, failure.reason) == (Code.INTERNAL, "INTERNAL")
    log = capsys.readouterr().err
    assert SYNTHETIC not in failure.raw + log
    fault, line = [json.loads(line) for line in log.splitlines()]
    assert fault["error_id"] == failure.metadata["error_id"]
    assert (fault["exception"], line["code"]) == ("KeyError", "INTERNAL")


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x12\x02\xff\xfe"])
async def test_malformed_bytes_are_the_callers_fault(payload: bytes) -> None:
    async with connected(telling("a")) as channel:
        send: Any = channel.unary_stream(METHOD)
        failure = await failure_of(anext(aiter(send(payload, timeout=10))))
        assert failure.code is Code.INVALID_ARGUMENT
        assert await texts(aiter(call(channel))) == ["a"]


class EndlessTelling:
    """Tells as long as it is listened to."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def __call__(self) -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "on"
                await asyncio.sleep(0.005)
        finally:
            self.closed.set()


async def test_a_stream_holds_its_place_to_its_end() -> None:
    endless = EndlessTelling()
    async with connected(endless, max_in_flight=1) as channel:
        first = call(channel)
        await anext(aiter(first))
        failure = await failure_of(texts(aiter(call(channel))))
        assert (failure.code, failure.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
        first.cancel()
        await asyncio.wait_for(endless.closed.wait(), 10)
        await asyncio.sleep(0.05)
        assert await anext(aiter(call(channel)))


async def test_a_stream_that_its_caller_leaves_is_closed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    endless = EndlessTelling()
    async with connected(endless) as channel:
        left = call(channel)
        await anext(aiter(left))
        left.cancel()
        await asyncio.wait_for(endless.closed.wait(), 10)
        await asyncio.sleep(0.05)
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line["code"] == "CANCELLED"


async def test_a_deadline_closes_a_stream() -> None:
    endless = EndlessTelling()
    async with connected(endless) as channel:
        stream = RankingServiceStub(channel).Explain(ExplainRequest(), timeout=0.2)
        failure = await failure_of(texts(aiter(stream)))
        assert failure.code is Code.DEADLINE_EXCEEDED
        await asyncio.wait_for(endless.closed.wait(), 10)
