"""Servers as processes: a second one on the same state, and one that is killed."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest

from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.rollout_pb2_grpc import RolloutServiceStub
from server.rankings import rank, request
from server.rollouts import expert_folder, key, state_name
from server.served_parts import ServedParts

SERVE = (sys.executable, "-m", "rankloom", "serve")
NUM_KILLS = 5


@asynccontextmanager
async def serving(
    bundle: Path, state: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str]]:
    """The process, and its addresses for rankings and for rollouts."""
    arguments = ("--bundle", str(bundle), "--state", str(state), "--port", "0")
    process = await asyncio.create_subprocess_exec(
        *SERVE, *arguments, "--rollout-port", "0", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    lines = [await asyncio.wait_for(process.stderr.readline(), 60) for _ in range(2)]
    draining = asyncio.create_task(process.stderr.read())
    try:
        yield process, json.loads(lines[0])["address"], json.loads(lines[1])["address"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await draining


async def refusal(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *SERVE, *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    [line] = err.decode().splitlines()
    return line


async def test_a_state_and_a_port_belong_to_one_server(served_folder: Path, tmp_path: Path) -> None:
    bundle, state = str(served_folder), str(tmp_path / "state")
    async with serving(served_folder, tmp_path / "state") as (_, _, rollouts):
        line = await refusal("--bundle", bundle, "--state", state, "--port", "0")
        assert "another server writes it" in line
        other = str(tmp_path / "other")
        port = rollouts.rpartition(":")[2]
        arguments = ("--bundle", bundle, "--state", other, "--port", "0", "--rollout-port", port)
        process = await asyncio.create_subprocess_exec(
            *SERVE, *arguments, stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()
        assert process.returncode == 2
        last = err.decode().splitlines()[-1]
        said = f"rankloom serve: cannot listen on {rollouts}: address already in use"
        assert last == f"{said}; stop what listens there, or choose another port"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--rollout-port", "0"), "--rollout-port: needs state"),
        (("--rollout-port", "0", "--state", "/dev/null/x"), "state: /dev/null/x: "),
    ],
)
async def test_rollouts_need_a_state(
    arguments: tuple[str, ...], told: str, served_folder: Path
) -> None:
    line = await refusal("--bundle", str(served_folder), "--port", "0", *arguments)
    assert line.startswith(f"rankloom serve: {told}")


async def _stage(rollouts: str, url: str) -> None:
    async with grpc.aio.insecure_channel(rollouts) as channel:
        message = rollout_pb2.StageRequest(
            bundle_url=url, expected_revision=1, idempotency_key=key()
        )
        await RolloutServiceStub(channel).Stage(message)


async def test_a_source_that_is_silent_keeps_no_server_from_its_end(
    served_folder: Path, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(be_silent, "127.0.0.1", 0)
    url = "ftp://{}:{}/bundle".format(*silent.sockets[0].getsockname())
    async with silent, serving(served_folder, tmp_path / "state") as (process, _, rollouts):
        staging = asyncio.create_task(_stage(rollouts, url))
        await asyncio.wait_for(asked.wait(), 30)
        process.send_signal(signal.SIGTERM)
        # FTP's own patience is 30 s, and what is silent is asked four times.
        assert await asyncio.wait_for(process.wait(), 20) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await staging


async def _operate(address: str, experts: list[Path], acknowledged: list[int]) -> None:
    """Stages and promotes one expert after the other; what is active goes to the list."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = RolloutServiceStub(channel)
        for turn in range(1000):
            active = acknowledged[-1]
            source = rollout_pb2.ExpertSource(name="global", url=str(experts[turn % len(experts)]))
            staged = await stub.Stage(
                rollout_pb2.StageRequest(
                    expert=source, expected_revision=active, idempotency_key=key() + address
                )
            )
            await stub.Promote(
                rollout_pb2.PromoteRequest(
                    revision=staged.rollout.revision,
                    expected_revision=active,
                    idempotency_key=key() + address,
                    without_gates=True,
                )
            )
            acknowledged.append(staged.rollout.revision)
            await stub.Retire(
                rollout_pb2.RetireRequest(
                    revision=active,
                    expected_revision=acknowledged[-1],
                    idempotency_key=key() + address,
                )
            )


async def test_a_killed_server_serves_again_what_was_acknowledged(
    served_folder: Path, parts: ServedParts, tmp_path: Path
) -> None:
    experts = [
        expert_folder(served_folder, "global", tmp_path / f"expert-{n}", 1.0 + 0.2 * n)
        for n in range(3)
    ]
    acknowledged, dice = [1], random.Random(0)
    for number in range(NUM_KILLS):
        async with serving(served_folder, tmp_path / "state") as (process, ranking, rollouts):
            async with (
                grpc.aio.insecure_channel(ranking) as channel,
                grpc.aio.insecure_channel(rollouts) as admin,
            ):
                answer = await rank(channel, request(parts))
                listed = await RolloutServiceStub(admin).List(rollout_pb2.ListRequest())
            active = listed.revisions.active
            # The next promotion may have been written, and its answer lost.
            assert answer.revision.number == active >= acknowledged[-1]
            states = [state_name(each) for each in listed.revisions.rollouts]
            assert states.count("active") == 1
            acknowledged.append(active)
            operator = asyncio.create_task(_operate(rollouts, experts, acknowledged))
            while number % 2 and acknowledged[-1] == active and not operator.done():
                await asyncio.sleep(0.01)  # on a slow machine nothing is acknowledged soon
            await asyncio.sleep(dice.uniform(0.1, 1.5))
            process.send_signal(signal.SIGKILL)
            with suppress(grpc.aio.AioRpcError):
                await operator
    assert acknowledged[-1] > 1, "nothing was going on as it was killed"
