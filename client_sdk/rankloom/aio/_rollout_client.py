"""The asyncio client of RolloutService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

from rankloom._policy import ROLLOUT_TIMEOUT_S, STAGING_TIMEOUT_S
from rankloom._rollout_requests import (
    ChangeRequest,
    RolloutAnswer,
    build_get,
    build_promote,
    build_retire,
    build_rollback,
    build_stage,
    build_stage_expert,
    build_start_canary,
    build_start_shadow,
    build_upload_header,
    call_metadata,
)
from rankloom._rollout_responses import parse_revisions, parse_rollout
from rankloom._rollouts import GateSpec, RevisionList, Rollout
from rankloom._uploads import FileUpload
from rankloom.aio._connection import AsyncConnection, readable
from rankloom.errors import CallCancelledError
from rankloom_proto.v1 import rollout_pb2, rollout_pb2_grpc


class AsyncRolloutClient(AsyncConnection):
    """Stages bundles and experts on a server, from any event loop.

        async with AsyncRolloutClient("localhost:50052") as client:
            staged = await client.stage("/bundles/next")
            await client.start_canary(staged.revision, percent=5)

    The arguments are those of `RolloutClient`, `expected` and `key` of every change too.
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        timeout_s: float = ROLLOUT_TIMEOUT_S,
        root_certificates: bytes | None = None,
        plaintext: bool = False,
    ) -> None:
        self._metadata = call_metadata(token)
        super().__init__(
            target, timeout_s=timeout_s, root_certificates=root_certificates, plaintext=plaintext
        )

    @property
    def _stub(self) -> rollout_pb2_grpc.RolloutServiceAsyncStub:
        return self._stub_of(rollout_pb2_grpc.RolloutServiceStub)

    async def stage(
        self,
        url: str,
        *,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """Have the server copy, load and test a bundle, as `RolloutClient.stage`."""
        request = build_stage(url, expected, key)
        return await self._change(self._stub.Stage, request, expected, timeout_s)

    async def stage_expert(
        self,
        name: str,
        url: str,
        *,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """Like `stage`, for the active bundle with its expert `name` replaced."""
        request = build_stage_expert(name, url, expected, key)
        return await self._change(self._stub.Stage, request, expected, timeout_s)

    async def upload(
        self,
        folder: str | Path,
        *,
        expert: str | None = None,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """Like `stage` or `stage_expert`, with a folder of this machine."""
        limit_s = self._limit_s(timeout_s)
        header = build_upload_header(expert, expected, key)
        upload = await asyncio.to_thread(FileUpload, folder, header)
        await self._set_expected(header, expected)
        return parse_rollout((await self._send(upload, limit_s)).rollout)

    async def start_shadow(
        self,
        revision: int,
        percent: int = 100,
        *,
        gates: GateSpec | None = None,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Have a revision rank live requests too, as `RolloutClient.start_shadow`."""
        request = build_start_shadow(revision, percent, gates, expected, key)
        return await self._change(self._stub.StartShadow, request, expected, timeout_s)

    async def start_canary(
        self,
        revision: int,
        percent: int,
        *,
        gates: GateSpec | None = None,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Send a share of the users to a revision, as `RolloutClient.start_canary`."""
        request = build_start_canary(revision, percent, gates, expected, key)
        return await self._change(self._stub.StartCanary, request, expected, timeout_s)

    async def promote(
        self,
        revision: int,
        *,
        without_gates: bool = False,
        reason: str = "",
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Send all users to a revision, as `RolloutClient.promote`."""
        request = build_promote(revision, without_gates, reason, expected, key)
        return await self._change(self._stub.Promote, request, expected, timeout_s)

    async def roll_back(
        self,
        revision: int,
        *,
        reason: str = "",
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Send no more users to a revision, as `RolloutClient.roll_back`."""
        request = build_rollback(revision, reason, expected, key)
        return await self._change(self._stub.Rollback, request, expected, timeout_s)

    async def retire(
        self,
        revision: int,
        *,
        reason: str = "",
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Unload a revision, once the requests that it is answering are done."""
        request = build_retire(revision, reason, expected, key)
        return await self._change(self._stub.Retire, request, expected, timeout_s)

    async def get(self, revision: int, *, timeout_s: float | None = None) -> Rollout:
        """Return one revision, or raise NotFoundError."""
        return await self._ask(self._stub.Get, build_get(revision), self._limit_s(timeout_s))

    async def list(self, *, timeout_s: float | None = None) -> RevisionList:
        """Return all revisions of the server."""
        limit_s = self._limit_s(timeout_s)
        request = rollout_pb2.ListRequest()
        with self._translating():
            response = await self._stub.List(request, timeout=limit_s, metadata=self._metadata)
        return parse_revisions(readable(response).revisions)

    async def watch(self) -> AsyncGenerator[RevisionList, None]:
        """Yield what `list` returns, now and after every change, until the server stops.

        async for revisions in client.watch(): print(revisions.active)

        The call starts at the first step, and ends when the generator is closed.
        """
        with self._translating():
            call = self._stub.Watch(rollout_pb2.WatchRequest(), metadata=self._metadata)
            try:
                async for response in call:
                    yield parse_revisions(readable(response).revisions)
            finally:
                call.cancel()

    async def _change(
        self,
        method: Callable[..., Awaitable[RolloutAnswer]],
        request: ChangeRequest,
        expected: int | None,
        timeout_s: float | None,
    ) -> Rollout:
        limit_s = self._limit_s(timeout_s)
        await self._set_expected(request, expected)
        return await self._ask(method, request, limit_s)

    async def _set_expected(self, request: ChangeRequest, expected: int | None) -> None:
        if expected is None:
            request.expected_revision = (await self.list()).active

    async def _ask(
        self, method: Callable[..., Awaitable[RolloutAnswer]], request: object, limit_s: float
    ) -> Rollout:
        with self._translating():
            response = await method(request, timeout=limit_s, metadata=self._metadata)
        return parse_rollout(readable(response).rollout)

    async def _send(self, upload: FileUpload, limit_s: float) -> RolloutAnswer:
        try:
            with self._translating():
                call = self._stub.StageUpload(
                    _read_in_a_thread(upload), timeout=limit_s, metadata=self._metadata
                )
                answer: RolloutAnswer = await call
        except CallCancelledError as error:
            raise upload.error or error from error.__cause__
        return readable(answer)


async def _read_in_a_thread(upload: FileUpload) -> AsyncIterator[rollout_pb2.StageUploadRequest]:
    """Yield the messages without blocking the loop; gRPC cancels the call if this raises."""
    messages = upload.messages()
    while (message := await asyncio.to_thread(next, messages, None)) is not None:
        yield message
