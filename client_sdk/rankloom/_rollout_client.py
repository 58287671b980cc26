"""The blocking client of RolloutService, for operators and their programs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc

from rankloom._connection import Connection
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
from rankloom._rpc_errors import call_closed
from rankloom._uploads import FileUpload
from rankloom.errors import InvalidRequestError
from rankloom_proto.v1 import rollout_pb2, rollout_pb2_grpc


class RolloutClient(Connection):
    """Stages bundles and experts on a server, and moves its users between revisions.

        with RolloutClient("localhost:50052") as client:
            staged = client.stage("/bundles/next")
            client.start_canary(staged.revision, percent=5)

    `target` and the options of the connection are as for `Client`, but the port is that of
    RolloutService. `token` is the one that the server asks for. `timeout_s` bounds each call,
    its retries included; staging has a longer default.

    Every change takes two more arguments:

    `expected`: the revision that the caller believes to be active. If another one is, the server
    changes nothing: PreconditionError has the reason REVISION_STALE and `current`. None asks the
    server for the active revision first. This still refuses a change that somebody else makes
    after that answer, but not one made before it, which the caller may not have seen.

    `key`: names the change, so that it happens once however often it is sent; by default a new
    one for each call. To repeat a change whose answer was lost, give the same arguments with the
    same `key` and `expected`, since the change itself may have moved the active revision.
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
    def _stub(self) -> rollout_pb2_grpc.RolloutServiceStub:
        return self._stub_of(rollout_pb2_grpc.RolloutServiceStub)

    def stage(
        self,
        url: str,
        *,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """Have the server copy, load and test a bundle; no user is sent to it yet.

        `url` is a folder: a path on the server, or a URL that the server can read. The answer
        is WARMED, or QUARANTINED with a reason if the bundle cannot be served.
        """
        request = build_stage(url, expected, key)
        return self._change(self._stub.Stage, request, expected, timeout_s)

    def stage_expert(
        self,
        name: str,
        url: str,
        *,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """Like `stage`, for the active bundle with its expert `name` replaced.

        `url` is a folder with the expert in PEFT's format.
        """
        request = build_stage_expert(name, url, expected, key)
        return self._change(self._stub.Stage, request, expected, timeout_s)

    def upload(
        self,
        folder: str | Path,
        *,
        expert: str | None = None,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """Like `stage`, or `stage_expert` if `expert` names one, with a folder of this machine.

        Sends the files in a bundle's manifest, or the two files of an expert. Raises
        InvalidRequestError if one of them cannot be read.
        """
        limit_s = self._limit_s(timeout_s)
        header = build_upload_header(expert, expected, key)
        upload = FileUpload(folder, header)
        self._set_expected(header, expected)
        return parse_rollout(self._send(upload, limit_s).rollout)

    def start_shadow(
        self,
        revision: int,
        percent: int = 100,
        *,
        gates: GateSpec | None = None,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Have a revision rank a sample of live requests too, and compare the rankings.

        The sample is `percent` of the requests, without those that arrive while others wait for
        the model.
        """
        request = build_start_shadow(revision, percent, gates, expected, key)
        return self._change(self._stub.StartShadow, request, expected, timeout_s)

    def start_canary(
        self,
        revision: int,
        percent: int,
        *,
        gates: GateSpec | None = None,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Send a share of the users to a revision, always the same ones.

        Another `percent` for the same revision starts its trial anew.
        """
        request = build_start_canary(revision, percent, gates, expected, key)
        return self._change(self._stub.StartCanary, request, expected, timeout_s)

    def promote(
        self,
        revision: int,
        *,
        without_gates: bool = False,
        reason: str = "",
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Send all users to a revision whose gates have passed.

        `without_gates` promotes it even if they have not; the server keeps the reason.
        """
        request = build_promote(revision, without_gates, reason, expected, key)
        return self._change(self._stub.Promote, request, expected, timeout_s)

    def roll_back(
        self,
        revision: int,
        *,
        reason: str = "",
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Send no more users to a revision; if it was active, the one before it is again."""
        request = build_rollback(revision, reason, expected, key)
        return self._change(self._stub.Rollback, request, expected, timeout_s)

    def retire(
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
        return self._change(self._stub.Retire, request, expected, timeout_s)

    def get(self, revision: int, *, timeout_s: float | None = None) -> Rollout:
        """Return one revision, or raise NotFoundError."""
        return self._ask(self._stub.Get, build_get(revision), self._limit_s(timeout_s))

    def list(self, *, timeout_s: float | None = None) -> RevisionList:
        """Return all revisions of the server."""
        limit_s = self._limit_s(timeout_s)
        request = rollout_pb2.ListRequest()
        with self._translating():
            response = self._stub.List(request, timeout=limit_s, metadata=self._metadata)
        return parse_revisions(response.revisions)

    def watch(self) -> Generator[RevisionList, None, None]:
        """Yield what `list` returns, now and after every change, until the server stops.

        for revisions in client.watch(): print(revisions.active)

        The call starts at the first step, and ends when the generator is closed.
        """
        with self._translating():
            call = self._stub.Watch(rollout_pb2.WatchRequest(), metadata=self._metadata)
            try:
                for response in call:
                    yield parse_revisions(response.revisions)
            finally:
                call.cancel()

    def _change(
        self,
        method: Callable[..., RolloutAnswer],
        request: ChangeRequest,
        expected: int | None,
        timeout_s: float | None,
    ) -> Rollout:
        limit_s = self._limit_s(timeout_s)
        self._set_expected(request, expected)
        return self._ask(method, request, limit_s)

    def _set_expected(self, request: ChangeRequest, expected: int | None) -> None:
        if expected is None:
            request.expected_revision = self.list().active

    def _ask(
        self, method: Callable[..., RolloutAnswer], request: object, limit_s: float
    ) -> Rollout:
        with self._translating():
            response = method(request, timeout=limit_s, metadata=self._metadata)
        return parse_rollout(response.rollout)

    def _send(self, upload: FileUpload, limit_s: float) -> RolloutAnswer:
        cancel: Future[Callable[[], Any]] = Future()  # set once there is a call to cancel
        with self._translating():
            call = self._stub.StageUpload.future(
                _until_unreadable(upload, cancel), timeout=limit_s, metadata=self._metadata
            )
            cancel.set_result(call.cancel)
            try:
                return call.result()
            except grpc.FutureCancelledError as error:
                raise upload.error or call_closed() from error
            finally:
                call.cancel()


def _until_unreadable(
    upload: FileUpload, cancel: Future[Callable[[], Any]]
) -> Iterator[rollout_pb2.StageUploadRequest]:
    """Yield the messages, or cancel the call: gRPC would print an error that left this iterator.

    gRPC runs it in a thread of its own.
    """
    try:
        yield from upload.messages()
    except InvalidRequestError:
        cancel.result()()
