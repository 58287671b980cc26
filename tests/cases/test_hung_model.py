"""A model that hangs or dies is reported, and holds up neither other callers nor the end."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest
import safetensors.numpy
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cases.hanging_server import HANGING, HangingDecoder
from engine.tiny import random_segment, tiny_decoder
from rankloom_adapters.bundle import PROJECTOR, open_bundle, seal
from rankloom_engine.errors import EngineFailedError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import ForwardInput, ForwardOutput
from rankloom_engine.pool import DecoderLoader
from rankloom_engine.prompt import Prompt
from rankloom_engine.runner import EngineRunner
from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.rollout_pb2_grpc import RolloutServiceStub
from rankloom_server.app import servers
from rankloom_server.watchdog import Watchdog
from server.rankings import rank, request
from server.served_parts import ServedParts
from server.servers import failure_of, opened, settings

SERVER = Path(__file__).with_name("hanging_server.py")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
MIXTURE = MixtureWeights(np.eye(3, dtype=np.float32)[0])


def prompt(num_candidates: int) -> Prompt:
    random = np.random.default_rng(0)
    candidates = tuple(random_segment(random, 3) for _ in range(num_candidates))
    return Prompt(random_segment(random, 5), candidates, 0)


async def test_health_says_so_while_the_model_hangs(
    parts: ServedParts, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder = HangingDecoder(parts.decoder)
    load = cast("DecoderLoader", lambda *_: decoder)
    given = settings(bundle=parts.loaded.bundle.folder, stall_s=0.3)
    async with (
        servers(given, load=load) as (server, _),
        opened(server) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        statuses = aiter(
            health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        )
        assert (await anext(statuses)).status == SERVING
        hung = asyncio.create_task(rank(channel, request(parts, HANGING)))
        assert (await anext(statuses)).status == NOT_SERVING
        refused = await failure_of(rank(channel, request(parts)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        assert "stalled" in refused.message
        decoder.go.set()
        assert (await anext(statuses)).status == SERVING
        assert len((await hung).items) == HANGING
        await rank(channel, request(parts))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    events = [line["event"] for line in lines if line["event"].startswith("model_")]
    assert events == ["model_stalled", "model_recovered"]


async def test_the_process_ends_where_that_is_configured() -> None:
    model = SimpleNamespace(busy_s=0.0, is_alive=True)
    reported, ends = list[bool](), list[str]()

    async def report(works: bool) -> None:
        reported.append(works)

    dog = Watchdog(model, 1.0, report, lambda: ends.append("end"))
    await dog.check()
    assert (reported, ends) == ([], [])
    model.busy_s = 1.5
    await dog.check()
    await dog.check()
    assert (reported, ends) == ([False], ["end"])
    model.busy_s, model.is_alive = 0.0, False
    await dog.check()
    assert reported == [False]
    model.is_alive = True
    await dog.check()
    assert reported == [False, True]


class ForgetfulDecoder(HangingDecoder):
    """Loses one row of a pass, once."""

    def __init__(self) -> None:
        super().__init__(tiny_decoder()[0])
        self.num_lost = 0

    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        outputs: list[ForwardOutput] = super().forward(inputs)
        if self.num_lost:
            return outputs
        self.num_lost = 1
        return outputs[1:]


async def test_an_error_outside_the_model_fails_its_requests_and_no_later_ones() -> None:
    runner = EngineRunner(ForgetfulDecoder())  # type: ignore[arg-type]
    await runner.start()
    async with asyncio.timeout(5.0):
        with pytest.raises(EngineFailedError):
            await runner.score(prompt(2), MIXTURE)
        assert runner.is_alive
        assert len((await runner.score(prompt(2), MIXTURE)).margins) == 2
    await runner.close()


class QuittingDecoder(ForgetfulDecoder):
    """Asks the process to end, as a library may."""

    def forward(self, inputs: Sequence[ForwardInput]) -> list[ForwardOutput]:
        self.num_lost += 1
        if self.num_lost == 1:
            raise SystemExit("no")
        return super().forward(inputs)


async def test_a_model_cannot_end_the_process() -> None:
    runner = EngineRunner(QuittingDecoder())  # type: ignore[arg-type]
    await runner.start()
    async with asyncio.timeout(5.0):
        with pytest.raises(EngineFailedError):
            await runner.score(prompt(2), MIXTURE)
        assert len((await runner.score(prompt(2), MIXTURE)).margins) == 2
    await runner.close()


async def test_closing_does_not_wait_for_a_pass_that_never_ends() -> None:
    decoder = HangingDecoder(tiny_decoder()[0])
    runner = EngineRunner(decoder)  # type: ignore[arg-type]
    await runner.start()
    calls = [asyncio.create_task(runner.score(prompt(HANGING), MIXTURE)) for _ in range(3)]
    await asyncio.sleep(0.05)
    calls.append(asyncio.create_task(runner.score(prompt(2), MIXTURE)))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await runner.close(0.2)
    assert time.monotonic() - began < 2.0
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in ends] == [EngineFailedError] * 4
    decoder.go.set()


class Hanging:
    """A server process, and the events of its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def event(self, name: str) -> dict[str, Any]:
        """Reads the log up to that event."""
        assert self._process.stderr is not None
        async with asyncio.timeout(60.0):
            while line := await self._process.stderr.readline():
                fields: dict[str, Any] = json.loads(line)
                if fields["event"] == name:
                    return fields
        raise AssertionError(f"no event {name}")

    async def terminated(self) -> float:
        """Seconds from SIGTERM to the end of the process."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self._process.wait(), 30) == 0
        return time.monotonic() - began


@asynccontextmanager
async def hanging(bundle: Path, state: Path, num_loads: int) -> AsyncIterator[Hanging]:
    """A server that loads so many decoders, and hangs at the next."""
    arguments = str(SERVER), str(bundle), str(state), str(num_loads)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Hanging(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_hung_pass_and_a_hung_staging_do_not_outlive_sigterm(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    copy_with_another_base(served_folder, other)
    async with hanging(served_folder, tmp_path / "state", 1) as server:
        ranking, rollouts = [(await server.event("serving"))["address"] for _ in range(2)]
        async with (
            grpc.aio.insecure_channel(ranking) as channel,
            grpc.aio.insecure_channel(rollouts) as admin,
        ):
            message = rollout_pb2.StageRequest(
                bundle_url=str(other), expected_revision=1, idempotency_key="a"
            )
            staging = asyncio.ensure_future(RolloutServiceStub(admin).Stage(message))
            await server.event("hangs")
            hung = asyncio.create_task(rank(channel, request(parts, HANGING)))
            await asyncio.sleep(0.3)
            assert await server.terminated() < 1.0 + 2.0 + 0.5, "drain_s, 2 s, and a busy machine"
            await asyncio.gather(staging, hung, return_exceptions=True)


async def test_sigterm_ends_a_start(served_folder: Path, tmp_path: Path) -> None:
    async with hanging(served_folder, tmp_path / "state", 0) as server:
        await server.event("hangs")
        assert await server.terminated() < 2.0 + 0.5


def copy_with_another_base(bundle: Path, out: Path) -> None:
    """Another projector: it needs a decoder of its own."""
    shutil.copytree(bundle, out)
    tensors = safetensors.numpy.load((out / PROJECTOR).read_bytes())
    moved = {name: np.asarray(value * np.float32(1.01)) for name, value in tensors.items()}
    (out / PROJECTOR).write_bytes(safetensors.numpy.save(moved))
    seal(out, open_bundle(bundle).metadata)
