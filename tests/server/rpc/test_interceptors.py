from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rankloom_adapters.revision import UnknownRevisionError
from rankloom_engine.errors import EngineClosedError, WorkExpiredError
from rankloom_features.wire import InvalidFieldError
from rankloom_proto.v1.features_pb2 import (
    GetUserFeaturesRequest,
    GetUserFeaturesResponse,
    UserFeatures,
    UserQuery,
)
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_ranker.errors import FallbackRefusedError
from server.servers import Behaviour, FeaturesCall, behaving_server, failure_of, opened, send_bytes

SYNTHETIC = "synthetic-secret"
METHOD = "/rankloom.v1.FeatureService/GetUserFeatures"
GOOD = GetUserFeaturesResponse(features=[UserFeatures(feature_version="good")])
Code = grpc.StatusCode


async def answer_well(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
    return GOOD


def failing(error: Exception) -> Behaviour:
    """Fails for requests with users; the empty one is answered."""

    async def behave(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        if request.users:
            raise error
        return GOOD

    return behave


@asynccontextmanager
async def connected(
    behaviour: Behaviour = answer_well, *, max_in_flight: int = 8
) -> AsyncIterator[grpc.aio.Channel]:
    server = behaving_server(behaviour, max_in_flight=max_in_flight)
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        yield channel


async def logged(capsys: pytest.CaptureFixture[str], num_lines: int) -> str:
    """What was logged, as soon as it has so many lines."""
    log = ""

    def is_there() -> bool:
        nonlocal log
        log += capsys.readouterr().err
        return log.count("\n") >= num_lines

    await until(is_there)
    return log


def send(channel: grpc.aio.Channel, payload: bytes, method: str = METHOD) -> Awaitable[object]:
    return send_bytes(channel, method, payload)


def ask(channel: grpc.aio.Channel, **fields: object) -> FeaturesCall:
    request = GetUserFeaturesRequest(**fields)  # type: ignore[arg-type]
    return FeatureServiceStub(channel).GetUserFeatures(request, timeout=10)


ONE_USER = {"users": [UserQuery(user_id=SYNTHETIC)]}

STATUSES: dict[str, tuple[Exception, Code, str | None]] = {
    "field": (InvalidFieldError("users[0].user_id", "is wrong"), Code.INVALID_ARGUMENT, None),
    "revision": (UnknownRevisionError(7), Code.NOT_FOUND, "REVISION_UNKNOWN"),
    "fallback_level": (
        FallbackRefusedError("ENGINE_FAILED"),
        Code.FAILED_PRECONDITION,
        "FALLBACK_REFUSED",
    ),
    "expired": (WorkExpiredError(), Code.DEADLINE_EXCEEDED, None),
    "timeout": (TimeoutError(), Code.DEADLINE_EXCEEDED, None),
    "engine closed": (EngineClosedError("closing"), Code.UNAVAILABLE, "NOT_SERVING"),
}


@pytest.mark.parametrize("name", STATUSES)
async def test_a_foreseen_error_has_its_status(name: str) -> None:
    error, code, reason = STATUSES[name]
    async with connected(failing(error)) as channel:
        failure = await failure_of(ask(channel, **ONE_USER))
        assert (failure.code, failure.reason) == (code, reason)
        assert await ask(channel) == GOOD


async def test_a_refused_rung_tells_why() -> None:
    async with connected(failing(FallbackRefusedError("FEATURE_VERSION_MISMATCH"))) as channel:
        failure = await failure_of(ask(channel, **ONE_USER))
    assert failure.metadata == {"fallback_reason": "FEATURE_VERSION_MISMATCH"}


async def test_an_unforeseen_error_is_masked_and_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with connected(failing(KeyError(SYNTHETIC))) as channel:
        failure = await failure_of(ask(channel, **ONE_USER))
        assert await ask(channel) == GOOD
    assert (failure.code, failure.reason) == (Code.INTERNAL, "INTERNAL")
    assert SYNTHETIC not in failure.raw
    log = capsys.readouterr().err
    assert SYNTHETIC not in log
    fault, call, _ = [json.loads(line) for line in log.splitlines()]
    assert fault["error_id"] == failure.metadata["error_id"]
    assert fault["error_id"] in failure.message
    assert (fault["exception"], call["code"]) == ("KeyError", "INTERNAL")
    assert "in behave" in fault["stack"]


MALFORMED = {
    "not a message": b"\xff\xff\xff\xff",
    "truncated": GetUserFeaturesRequest(users=[UserQuery(user_id=SYNTHETIC)]).SerializeToString()[
        :-3
    ],
    "not UTF-8": b"\x0a\x04\x0a\x02\xff\xfe",
    "wrong wire type": b"\x0b",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_bytes_are_the_callers_fault(name: str) -> None:
    async with connected() as channel:
        failure = await failure_of(send(channel, MALFORMED[name]))
        assert failure.code is Code.INVALID_ARGUMENT
        assert SYNTHETIC not in failure.raw
        assert await ask(channel) == GOOD


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_malformed_bytes_to_health_too(method: str) -> None:
    path = f"/grpc.health.v1.Health/{method}"
    async with connected() as channel:
        watch: Any = channel.unary_stream(path)
        assert (
            await failure_of(anext(aiter(watch(b"\xff", timeout=10))))
        ).code is Code.INVALID_ARGUMENT
        checked = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=10
        )
        assert checked.status == health_pb2.HealthCheckResponse.SERVING


async def test_an_unknown_service_is_unknown_to_health() -> None:
    request = health_pb2.HealthCheckRequest(service="elsewhere")
    async with connected() as channel:
        call = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
        assert (await failure_of(call)).code is Code.NOT_FOUND


@pytest.mark.parametrize("method", [METHOD + "s", "/elsewhere/Get", "/"])
async def test_an_unknown_method_is_unimplemented(method: str) -> None:
    async with connected() as channel:
        assert (await failure_of(send(channel, b"", method))).code is Code.UNIMPLEMENTED
        assert await ask(channel) == GOOD


async def test_a_message_over_the_size_limit_is_refused() -> None:
    async with connected() as channel:
        failure = await failure_of(send(channel, b"\0" * (4 * 1024 * 1024 + 1)))
        assert failure.code is Code.RESOURCE_EXHAUSTED
        assert await ask(channel) == GOOD


class Turnstile:
    """Holds every call until it is opened."""

    def __init__(self) -> None:
        self.num_waiting = 0
        self.open = asyncio.Event()

    async def __call__(self, request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        self.num_waiting += 1
        await self.open.wait()
        return GOOD

    async def reached(self, count: int) -> None:
        await until(lambda: self.num_waiting == count)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_calls_over_the_limit_are_refused_at_once() -> None:
    gate = Turnstile()
    async with connected(gate, max_in_flight=2) as channel:
        held = [ask(channel) for _ in range(2)]
        await gate.reached(2)
        for _ in range(3):
            failure = await failure_of(ask(channel))
            assert (failure.code, failure.reason) == (Code.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert failure.retry_after_s
        gate.open.set()
        assert [await call for call in held] == [GOOD, GOOD]
        assert await ask(channel) == GOOD


async def test_a_call_that_its_caller_leaves_frees_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gate = Turnstile()
    async with connected(gate, max_in_flight=1) as channel:
        call = ask(channel)
        await gate.reached(1)
        call.cancel()
        log = await logged(capsys, 1)
        gate.open.set()
        assert await ask(channel) == GOOD
    assert json.loads(log)["code"] == "CANCELLED"


async def test_every_call_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with connected() as channel:
        await ask(channel, **ONE_USER)
        await failure_of(send(channel, b"\xff"))
        log = await logged(capsys, 2)  # before the server's end, which cancels what still runs
    lines = [json.loads(line) for line in log.splitlines()]
    assert [(line["event"], line["method"], line["code"]) for line in lines] == [
        ("call", METHOD, "OK"),
        ("call", METHOD, "INVALID_ARGUMENT"),
    ]
    assert all(line["total_ms"] >= 0 for line in lines)
