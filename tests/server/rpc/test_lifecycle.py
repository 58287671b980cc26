from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from rankloom_proto.v1.features_pb2 import GetUserFeaturesRequest, GetUserFeaturesResponse
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_server.admission import Admission
from rankloom_server.errors import ListenError, StartError
from rankloom_server.rpc.lifecycle import CROSSING_S, Facts, RpcServer
from server.servers import FeaturesCall, behaving_server, failure_of, no_warm_up, opened

SLOW_SERVER = Path(__file__).with_name("slow_server.py")
SERVICES = ("", "rankloom.v1.FeatureService")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def answer(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
    return GetUserFeaturesResponse()


def ask(channel: grpc.aio.Channel) -> FeaturesCall:
    return FeatureServiceStub(channel).GetUserFeatures(GetUserFeaturesRequest(), timeout=20)


async def health_of(channel: grpc.aio.Channel) -> set[int]:
    stub = health_pb2_grpc.HealthStub(channel)
    requests = (health_pb2.HealthCheckRequest(service=service) for service in SERVICES)
    return {(await stub.Check(request, timeout=10)).status for request in requests}


async def test_it_serves_only_once_it_is_open() -> None:
    server = behaving_server(answer)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await health_of(channel) == {NOT_SERVING}
        failure = await failure_of(ask(channel))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        assert failure.retry_after_s
        await server.open()
        assert await health_of(channel) == {SERVING}
        assert await ask(channel) == GetUserFeaturesResponse()
    await server.grpc.stop(None)


async def test_a_failed_warm_up_stops_it() -> None:
    async def warm_up() -> Facts:
        raise StartError("no good")

    server = RpcServer(Admission(1), (), warm_up=warm_up, reflects=False)
    port = await server.start("127.0.0.1", 0)
    with pytest.raises(StartError, match="no good"):
        await server.open()
    async with opened_at(port) as target:
        assert target


@asynccontextmanager
async def opened_at(port: int) -> AsyncIterator[str]:
    server = behaving_server(answer)
    assert await server.start("127.0.0.1", port) == port
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.grpc.stop(None)


async def test_a_port_in_use_is_refused() -> None:
    async with opened(behaving_server(answer)) as target:
        port = int(target.rpartition(":")[2])
        with pytest.raises(
            ListenError, match=f"^cannot listen on {target}: address already in use; stop what"
        ):
            await behaving_server(answer).start("127.0.0.1", port)


async def test_drain_ends_the_calls_in_flight_and_takes_no_more() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def hold(request: GetUserFeaturesRequest) -> GetUserFeaturesResponse:
        entered.set()
        await release.wait()
        return GetUserFeaturesResponse()

    server = behaving_server(hold)
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        held = ask(channel)
        await entered.wait()
        draining = asyncio.create_task(server.drain(10))
        await asyncio.sleep(2 * CROSSING_S)
        failure = await failure_of(ask(channel))
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        assert not held.done()
        release.set()
        assert await held == GetUserFeaturesResponse()
        await asyncio.wait_for(draining, 5)


async def test_before_a_drain_calls_are_still_taken_while_health_says_otherwise() -> None:
    server = behaving_server(answer)
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        ending = asyncio.create_task(server.announce_end(0.5))
        await asyncio.sleep(0)
        assert await health_of(channel) == {NOT_SERVING}
        assert await ask(channel) == GetUserFeaturesResponse()
        assert not ending.done()
        await ending


async def test_a_health_watcher_does_not_hold_the_drain_up() -> None:
    server = behaving_server(answer)
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        statuses = aiter(watch)
        assert (await anext(statuses)).status == SERVING
        started = time.monotonic()
        draining = asyncio.create_task(server.drain(30))
        assert (await anext(statuses)).status == NOT_SERVING
        await draining
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("reflects", [True, False])
async def test_reflection_is_there_only_where_it_is_asked_for(reflects: bool) -> None:
    server = RpcServer(Admission(1), SERVICES[1:], warm_up=no_warm_up, reflects=reflects)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = anext(aiter(stub.ServerReflectionInfo(iter([request]), timeout=10)))
        if reflects:
            services = (await call).list_services_response.service
            assert SERVICES[1] in {service.name for service in services}
        else:
            assert (await failure_of(call)).code is grpc.StatusCode.UNIMPLEMENTED


class Process:
    """A slow server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.signal = process.send_signal

    async def event(self) -> dict[str, str]:
        """The next line of its log; also empty ones, of calls that have begun."""
        if self._process.stderr is None:
            raise ValueError("stderr is not piped")
        line = await asyncio.wait_for(self._process.stderr.readline(), 30)
        event: dict[str, str] = json.loads(line)
        return event

    async def ended(self) -> int:
        return await asyncio.wait_for(self._process.wait(), 30)


@asynccontextmanager
async def slow_server(call_s: float, drain_s: float) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SLOW_SERVER), str(call_s), str(drain_s), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def call_in_flight(process: Process) -> AsyncIterator[FeaturesCall]:
    serving = await process.event()
    assert serving["event"] == "serving"
    async with grpc.aio.insecure_channel(serving["address"]) as channel:
        call = ask(channel)
        assert await process.event() == {}
        yield call


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(signal_number: signal.Signals) -> None:
    async with slow_server(call_s=1.0, drain_s=20) as process, call_in_flight(process) as call:
        process.signal(signal_number)
        assert await call == GetUserFeaturesResponse()
        started = time.monotonic()
        assert await process.ended() == 0
        assert time.monotonic() - started < 5


async def test_the_drain_ends_with_its_time() -> None:
    async with slow_server(call_s=60, drain_s=1) as process, call_in_flight(process) as call:
        started = time.monotonic()
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert time.monotonic() - started < 5
        code = (await failure_of(call)).code
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_second_signal_ends_it_at_once() -> None:
    async with slow_server(call_s=60, drain_s=60) as process, call_in_flight(process):
        process.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        started = time.monotonic()
        process.signal(signal.SIGTERM)
        assert await process.ended() == -signal.SIGTERM
        assert time.monotonic() - started < 1
