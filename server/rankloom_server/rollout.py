"""RolloutService: between the wire and the revisions of this server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from rankloom_adapters.rollout.states import Rollout, Verb
from rankloom_features.wire import InvalidFieldError, check_chars
from rankloom_proto.v1 import rollout_pb2, rollout_pb2_grpc
from rankloom_server import logs
from rankloom_server.admission import Admission
from rankloom_server.config import RolloutSettings
from rankloom_server.deployment import ManagedDeployment
from rankloom_server.memory import resident_bytes
from rankloom_server.metrics import ServerMetrics
from rankloom_server.rollout_wire import (
    MAX_URL_CHARS,
    Change,
    command_of,
    key_of,
    now,
    rollout_to_wire,
)
from rankloom_server.rpc.identity import read_token
from rankloom_server.rpc.lifecycle import Facts, RpcServer

SERVICE_NAME = rollout_pb2.DESCRIPTOR.services_by_name["RolloutService"].full_name
MAX_CALLS = 32
# Limits of their own: a rollback must be admitted, however many calls watch or upload.
MAX_APART = {"Watch": 32, "Stage": 16, "StageUpload": 16}
MAX_NAME_CHARS = 64
WATCH_EVERY_S = 1.0  # for what changes by itself: leases, gates


def rollout_server(
    settings: RolloutSettings,
    deployment: ManagedDeployment,
    metrics: ServerMetrics,
    *,
    reflects: bool,
) -> RpcServer:
    """The server of RolloutService, which does not listen yet. Raises ConfigError."""

    async def warm_up() -> Facts:
        return {"service": SERVICE_NAME}  # the ranking server has loaded everything

    admission = Admission(MAX_CALLS, MAX_APART)
    server = RpcServer(
        admission,
        [SERVICE_NAME],
        warm_up=warm_up,
        reflects=reflects,
        metrics=metrics,
        token=read_token(settings.rollout_token) if settings.rollout_token else None,
    )
    service = RolloutService(deployment, admission)
    rollout_pb2_grpc.add_RolloutServiceServicer_to_server(service, server.grpc)
    return server


class RolloutService(rollout_pb2_grpc.RolloutServiceServicer):
    """Changes and reports the revisions of one server; errors leave as exceptions."""

    def __init__(self, deployment: ManagedDeployment, admission: Admission) -> None:
        self._deployment, self._admission = deployment, admission

    async def Stage(
        self, request: rollout_pb2.StageRequest, context: object
    ) -> rollout_pb2.StageResponse:
        """A bundle, or one expert for the active bundle, from a path or URL."""
        staging, expert = self._deployment.staging, request.expert
        if request.WhichOneof("source") == "expert":
            check_chars("expert.name", expert.name, 1, MAX_NAME_CHARS)
            check_chars("expert.url", expert.url, 1, MAX_URL_CHARS)
            made = staging.expert(expert.name, expert.url, request.expected_revision)
            origin = f"{expert.name} {expert.url}"
        else:
            check_chars("bundle_url", request.bundle_url, 1, MAX_URL_CHARS)
            made, origin = staging.bundle(request.bundle_url), request.bundle_url
        staged = await self._stage(made, request.expected_revision, key_of(request), origin)
        return rollout_pb2.StageResponse(rollout=staged)

    async def StageUpload(
        self, request_iterator: AsyncIterator[rollout_pb2.StageUploadRequest], context: object
    ) -> rollout_pb2.StageUploadResponse:
        """A bundle or expert whose files come in the stream."""
        header = await _header_of(request_iterator)
        key, staging = key_of(header), self._deployment.staging
        async with staging.upload() as upload:
            async for message in request_iterator:
                if message.WhichOneof("part") != "chunk":
                    raise InvalidFieldError("chunk", "is not given; the header comes first alone")
                await asyncio.to_thread(upload.write, message.chunk.name, message.chunk.data)
            made = (
                staging.expert(header.expert, upload.folder, header.expected_revision)
                if header.expert
                else staging.bundle(str(upload.folder))
            )
            origin = " ".join(filter(None, ["upload", header.expert, upload.digest[:12]]))
            staged = await self._stage(made, header.expected_revision, key, origin)
        return rollout_pb2.StageUploadResponse(rollout=staged)

    async def StartShadow(
        self, request: rollout_pb2.StartShadowRequest, context: object
    ) -> rollout_pb2.StartShadowResponse:
        """Compares a revision's rankings with the active one's."""
        return rollout_pb2.StartShadowResponse(rollout=await self._change(Verb.SHADOW, request))

    async def StartCanary(
        self, request: rollout_pb2.StartCanaryRequest, context: object
    ) -> rollout_pb2.StartCanaryResponse:
        """Sends a share of the users to a revision."""
        return rollout_pb2.StartCanaryResponse(rollout=await self._change(Verb.CANARY, request))

    async def Promote(
        self, request: rollout_pb2.PromoteRequest, context: object
    ) -> rollout_pb2.PromoteResponse:
        """Sends all traffic to a revision."""
        return rollout_pb2.PromoteResponse(rollout=await self._change(Verb.PROMOTE, request))

    async def Rollback(
        self, request: rollout_pb2.RollbackRequest, context: object
    ) -> rollout_pb2.RollbackResponse:
        """Sends no traffic to a revision any more."""
        return rollout_pb2.RollbackResponse(rollout=await self._change(Verb.ROLL_BACK, request))

    async def Retire(
        self, request: rollout_pb2.RetireRequest, context: object
    ) -> rollout_pb2.RetireResponse:
        """Releases a revision once its requests have ended."""
        return rollout_pb2.RetireResponse(rollout=await self._change(Verb.RETIRE, request))

    async def Get(
        self, request: rollout_pb2.GetRequest, context: object
    ) -> rollout_pb2.GetResponse:
        """One revision. Raises UnknownRolloutError."""
        found = self._deployment.rollout(request.revision)
        return rollout_pb2.GetResponse(rollout=self._shown(found))

    async def List(
        self, request: rollout_pb2.ListRequest, context: object
    ) -> rollout_pb2.ListResponse:
        return rollout_pb2.ListResponse(revisions=self._all())

    async def Watch(
        self, request: rollout_pb2.WatchRequest, context: object
    ) -> AsyncGenerator[rollout_pb2.WatchResponse, None]:
        """All revisions, now and after every change, until the server drains."""
        last = None
        while True:
            found, compared = self._all(), self._all()
            for moving in ("time", "resident_bytes"):  # always another one
                compared.ClearField(moving)
            if compared != last:
                last = compared
                yield rollout_pb2.WatchResponse(revisions=found)
            await self._admission.unless_draining(self._deployment.changed(WATCH_EVERY_S))

    async def _stage(
        self,
        made: AbstractAsyncContextManager[Path],
        expected: int,
        key: str,
        origin: str,
    ) -> rollout_pb2.Rollout:
        staged = await self._deployment.stage(made, expected, key, origin)
        _note(staged)
        return self._shown(staged)

    async def _change(self, verb: Verb, request: Change) -> rollout_pb2.Rollout:
        changed = await self._deployment.change(command_of(verb, request))
        _note(changed)
        return self._shown(changed)

    def _shown(self, rollout: Rollout) -> rollout_pb2.Rollout:
        number = rollout.revision
        return rollout_to_wire(
            rollout,
            leases=self._deployment.num_leases(number),
            loaded=self._deployment.is_loaded(number),
            trial=self._deployment.trial_of(number),
        )

    def _all(self) -> rollout_pb2.Revisions:
        return rollout_pb2.Revisions(
            rollouts=list(map(self._shown, self._deployment.rollouts)),
            active=self._deployment.active,
            expert_bytes=self._deployment.expert_bytes,
            resident_bytes=resident_bytes(),
            time=now(),
        )


async def _header_of(
    messages: AsyncIterator[rollout_pb2.StageUploadRequest],
) -> rollout_pb2.StageUploadHeader:
    """The first message. Raises InvalidFieldError."""
    first = await anext(messages, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidFieldError("header", "must come first")
    check_chars("header.expert", first.header.expert, 0, MAX_NAME_CHARS)
    return first.header


def _note(rollout: Rollout) -> None:
    logs.note(
        revision=rollout.revision,
        bundle_digest=rollout.bundle_digest,
        rollout_state=rollout.state.value,
    )
