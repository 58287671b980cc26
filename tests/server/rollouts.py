"""Ranking servers with a state on disk, what is staged on them, and calls to both ports."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import safetensors.numpy

from rankloom_adapters.bundle import expert_part, open_bundle, seal
from rankloom_adapters.expert import CONFIG_FILE, WEIGHTS_FILE
from rankloom_proto.v1 import rollout_pb2
from rankloom_proto.v1.ranking_pb2 import RankRequest, RankResponse
from rankloom_proto.v1.ranking_pb2_grpc import RankingServiceStub
from rankloom_proto.v1.rollout_pb2_grpc import RolloutServiceStub
from rankloom_server.app import servers
from rankloom_server.state import ServerState, opened_state
from server.servers import opened, settings

if TYPE_CHECKING:
    from rankloom_proto.v1.rollout_pb2_grpc import RolloutServiceAsyncStub

    Watching = grpc.aio.UnaryStreamCall[rollout_pb2.WatchRequest, rollout_pb2.WatchResponse]

CHUNK_BYTES = 10_000
_keys = itertools.count()


@dataclass(frozen=True)
class Running:
    """A server that takes calls, and its state."""

    ranking: grpc.aio.Channel
    admin: grpc.aio.Channel
    rollout_address: str
    state: ServerState
    ranking_address: str

    async def rank(self, message: RankRequest) -> RankResponse:
        answer: RankResponse = await RankingServiceStub(self.ranking).Rank(message, timeout=30)
        return answer

    @property
    def rollouts(self) -> RolloutServiceAsyncStub:
        return RolloutServiceStub(self.admin)

    async def stage(self, url: str | Path, expected: int = 1) -> rollout_pb2.Rollout:
        answer = await self.rollouts.Stage(
            rollout_pb2.StageRequest(
                bundle_url=str(url), expected_revision=expected, idempotency_key=key()
            ),
            timeout=60,
        )
        return answer.rollout

    async def stage_expert(self, name: str, url: Path, expected: int = 1) -> rollout_pb2.Rollout:
        source = rollout_pb2.ExpertSource(name=name, url=str(url))
        answer = await self.rollouts.Stage(
            rollout_pb2.StageRequest(
                expert=source, expected_revision=expected, idempotency_key=key()
            ),
            timeout=60,
        )
        return answer.rollout

    async def promote(self, revision: int, expected: int = 1) -> rollout_pb2.Rollout:
        """Without gates."""
        answer = await self.rollouts.Promote(
            rollout_pb2.PromoteRequest(
                revision=revision,
                expected_revision=expected,
                idempotency_key=key(),
                without_gates=True,
                reason="a test",
            ),
            timeout=10,
        )
        return answer.rollout

    async def roll_back(self, revision: int, expected: int) -> rollout_pb2.Rollout:
        answer = await self.rollouts.Rollback(
            rollout_pb2.RollbackRequest(
                revision=revision, expected_revision=expected, idempotency_key=key()
            ),
            timeout=10,
        )
        return answer.rollout

    async def start_canary(
        self, revision: int, percent: int, expected: int = 1, **gates: float
    ) -> rollout_pb2.Rollout:
        answer = await self.rollouts.StartCanary(
            rollout_pb2.StartCanaryRequest(
                revision=revision,
                percent=percent,
                expected_revision=expected,
                idempotency_key=key(),
                gates=rollout_pb2.GateSpec(**gates),  # type: ignore[arg-type]
            ),
            timeout=10,
        )
        return answer.rollout

    async def get(self, revision: int) -> rollout_pb2.Rollout:
        answer = await self.rollouts.Get(rollout_pb2.GetRequest(revision=revision), timeout=10)
        return answer.rollout

    async def all(self) -> rollout_pb2.Revisions:
        answer = await self.rollouts.List(rollout_pb2.ListRequest(), timeout=10)
        return answer.revisions


async def upload_of(
    header: rollout_pb2.StageUploadHeader, folder: Path
) -> AsyncIterator[rollout_pb2.StageUploadRequest]:
    """A folder's files in pieces, behind their header."""
    yield rollout_pb2.StageUploadRequest(header=header)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data, name = path.read_bytes(), path.relative_to(folder).as_posix()
        for at in range(0, len(data), CHUNK_BYTES):
            chunk = rollout_pb2.FileChunk(name=name, data=data[at : at + CHUNK_BYTES])
            yield rollout_pb2.StageUploadRequest(chunk=chunk)


async def next_of(stream: Watching) -> rollout_pb2.WatchResponse:
    """The next message. Fails where the stream has ended."""
    message = await stream.read()
    assert isinstance(message, rollout_pb2.WatchResponse)
    return message


def key() -> str:
    return f"key-{next(_keys)}"


def state_name(rollout: rollout_pb2.Rollout) -> str:
    return rollout_pb2.RolloutState.Name(rollout.state).removeprefix("ROLLOUT_STATE_").lower()


@asynccontextmanager
async def rolling_out(bundle: Path, folder: Path, **values: object) -> AsyncIterator[Running]:
    """A server of a bundle, or of what its state says."""
    given = settings(bundle=bundle, state=folder, rollout_port=0, **values)
    with opened_state(given.rollout.state) as state:
        assert state is not None
        async with (
            servers(given, state) as (server, admin),
            opened(server) as target,
        ):
            assert admin is not None
            async with (
                opened(admin) as admin_target,
                grpc.aio.insecure_channel(target) as ranking,
                grpc.aio.insecure_channel(admin_target) as channel,
            ):
                yield Running(ranking, channel, admin_target, state, target)


def expert_folder(
    bundle: Path, name: str, folder: Path, scale: float, *, alpha: float = 1.0
) -> Path:
    """A bundle's expert with its weights, or its alpha alone, times a number."""
    opened_bundle = open_bundle(bundle)
    folder.mkdir(parents=True)
    config = json.loads(opened_bundle.read(expert_part(name, CONFIG_FILE)))
    config["lora_alpha"] *= alpha
    tensors = safetensors.numpy.load(opened_bundle.read(expert_part(name, WEIGHTS_FILE)))
    scaled = {key: np.asarray(array * scale) for key, array in tensors.items()}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(scaled))
    return folder


def other_bundle(bundle: Path, folder: Path, scale: float = 2.0) -> Path:
    """The bundle with all experts' weights times a number."""
    shutil.copytree(bundle, folder)
    for path in folder.glob(f"experts/*/{WEIGHTS_FILE}"):
        tensors = safetensors.numpy.load(path.read_bytes())
        path.write_bytes(
            safetensors.numpy.save({k: np.asarray(a * scale) for k, a in tensors.items()})
        )
    seal(folder, {**open_bundle(bundle).metadata, "copy": folder.name})
    return folder
