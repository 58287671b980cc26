"""Kubernetes' probes and shutdown, as `docs/operate.md` writes them, against a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from rankloom_proto.v1.features_pb2 import GetUserFeaturesRequest
from rankloom_proto.v1.features_pb2_grpc import FeatureServiceStub
from rankloom_server.config import load_settings

ROOT = Path(__file__).parents[2]
SLOW_SERVER = ROOT / "tests" / "server" / "rpc" / "slow_server.py"
CALL_S, DRAIN_S, WARM_UP_S, DELAY_S = 0.05, 5.0, 2.5, 4.0


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    """The pod of the page."""
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    block = text.partition("```yaml\n")[2].partition("```")[0]
    deployment, _ = yaml.safe_load_all(block)
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def test_the_page_gives_the_server_time_to_start_and_to_stop(
    pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = pod["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    server = load_settings(None, {"bundle": "b"}).server
    assert server.drain_delay_s == 5
    assert pod["terminationGracePeriodSeconds"] > server.drain_delay_s + server.drain_s + 2
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


@asynccontextmanager
async def slow_server(host: str) -> AsyncIterator[asyncio.subprocess.Process]:
    given = map(str, (CALL_S, DRAIN_S, host, WARM_UP_S, DELAY_S))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SLOW_SERVER), *given, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def probed(pod: dict[str, Any], probe: str, host: str) -> bool:
    """Runs a probe's command within its time. The test's server is on a socket of its own."""
    found = pod["containers"][0][probe]
    program, *arguments = found["exec"]["command"]
    assert program == "rankloom"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", program, *arguments, "--server", host,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(5 * found["timeoutSeconds"]):  # the test's machine may be busy
        return await process.wait() == 0


async def call_until(host: str, end: float) -> int:
    """Calls one after the other over one connection; raises what any call raises."""
    num_calls = 0
    async with grpc.aio.insecure_channel(host) as channel:
        stub = FeatureServiceStub(channel)
        while time.monotonic() < end:
            await stub.GetUserFeatures(GetUserFeaturesRequest(), timeout=5)
            num_calls += 1
    return num_calls


async def call_anew_until(host: str, end: float) -> int:
    """The same with a connection for each call."""
    num_calls = 0
    while time.monotonic() < end:
        num_calls += await call_until(host, time.monotonic() + CALL_S / 2)
    return num_calls


async def test_a_slow_start_is_waited_for_and_traffic_after_sigterm_is_answered(
    pod: dict[str, Any], tmp_path: Path
) -> None:
    host = f"unix:{tmp_path}/ranking.sock"
    async with slow_server(host) as process:
        failures = 0
        while not await probed(pod, "startupProbe", host):
            failures += 1
            assert process.returncode is None
            assert failures < pod["containers"][0]["startupProbe"]["failureThreshold"]
        assert failures
        assert await probed(pod, "readinessProbe", host)
        assert await probed(pod, "livenessProbe", host)

        end = time.monotonic() + 0.2 + 0.75 * DELAY_S
        traffic = asyncio.gather(call_until(host, end), call_anew_until(host, end))
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        assert not await probed(pod, "readinessProbe", host)
        assert not traffic.done()
        assert min(await traffic) > 10
        started = time.monotonic()
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert time.monotonic() - started < DELAY_S + DRAIN_S
    assert not os.path.exists(host.removeprefix("unix:"))
