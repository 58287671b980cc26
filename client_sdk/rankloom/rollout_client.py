"""The client of RolloutService: for operators, and for what acts for them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import grpc

from rankloom.checks import UINT32, UINT64, checked_integer, checked_text, checked_type
from rankloom.connection import Connection, translating
from rankloom.errors import CallCancelledError, ErrorDetails, InvalidRequestError
from rankloom.policy import ROLLOUT_TIMEOUT_S, STAGING_TIMEOUT_S, checked_timeout_s
from rankloom.rollout_wire import gates_to_wire, parse_revisions, parse_rollout
from rankloom.rollouts import GateSpec, RevisionList, Rollout
from rankloom.uploads import FileUpload
from rankloom_proto.v1 import rollout_pb2, rollout_pb2_grpc


class _Changed(Protocol):
    """What every change answers."""

    @property
    def rollout(self) -> rollout_pb2.Rollout: ...


class RolloutClient(Connection):
    """Stages bundles and experts on a server, and moves its users between revisions.

    `target` and the options of the connection are as for `Client`, but the port is that of
    RolloutService. `token` is what the server asks of callers. `timeout_s` bounds each call,
    its retries included; staging has a longer default.

        with RolloutClient("localhost:50052") as client:
            staged = client.stage("/bundles/next")
            client.start_canary(staged.revision, percent=5)

    Every change takes these:

    `expected`: the revision that its caller believes to be active. Where another one is, the
    server changes nothing, and PreconditionError has the reason REVISION_STALE and `current`.
    None asks the server first and takes its answer. A change by somebody else after that answer
    is still refused; one before it, which the caller may not have heard of, is not.

    `key`: names the change, so that it is done once however often it is sent; made anew for each
    call where it is not given. A change whose answer was lost is asked for again with the same
    arguments: the key and `expected` too, since the change itself may have moved what is active.
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
        self._metadata = _metadata(token)
        self._timeout_s = checked_timeout_s(timeout_s)
        super().__init__(target, root_certificates, plaintext)
        self._stub = rollout_pb2_grpc.RolloutServiceStub(self._channel)

    def stage(
        self,
        url: str,
        *,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """Have the server keep, load and try out a bundle; nobody is sent to it yet.

        `url` is a folder: a path on the server, or a URL that the server can read. The answer
        is WARMED, or QUARANTINED with a reason where the bundle cannot be served.
        """
        source = {"bundle_url": checked_text(url, "url")}
        return self._stage(source, expected, key, timeout_s)

    def stage_expert(
        self,
        name: str,
        url: str,
        *,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """As `stage`, with the active bundle and one expert in place of its own of that name.

        `url` is a folder with the expert in PEFT's format.
        """
        expert = rollout_pb2.ExpertSource(
            name=checked_text(name, "name"), url=checked_text(url, "url")
        )
        return self._stage({"expert": expert}, expected, key, timeout_s)

    def upload(
        self,
        folder: str | Path,
        *,
        expert: str | None = None,
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float = STAGING_TIMEOUT_S,
    ) -> Rollout:
        """As `stage`, or `stage_expert` where `expert` names one, with a folder of this machine.

        Of a bundle all files are sent that its manifest lists, of an expert its two. Raises
        InvalidRequestError where one cannot be read.
        """
        limit_s = checked_timeout_s(timeout_s)
        name = "" if expert is None else checked_text(expert, "expert")
        upload = FileUpload(Path(folder), name)
        return parse_rollout(self._send(upload, self._terms(expected, key), limit_s).rollout)

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
        """Have a sample of live requests ranked once more by a revision, and compared.

        `percent` of them are, less those that come while others wait for the model.
        """
        request = rollout_pb2.StartShadowRequest(
            revision=_number(revision),
            percent=checked_integer(percent, UINT32, "percent"),
            gates=gates_to_wire(gates),
            **self._terms(expected, key),
        )
        return self._change(self._stub.StartShadow, request, timeout_s)

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

        Asked again with another share, the trial begins anew.
        """
        request = rollout_pb2.StartCanaryRequest(
            revision=_number(revision),
            percent=checked_integer(percent, UINT32, "percent"),
            gates=gates_to_wire(gates),
            **self._terms(expected, key),
        )
        return self._change(self._stub.StartCanary, request, timeout_s)

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
        """Send everybody to a revision, once its gates have passed.

        `without_gates` promotes it all the same; the server keeps the reason.
        """
        request = rollout_pb2.PromoteRequest(
            revision=_number(revision),
            without_gates=checked_type(without_gates, bool, "without_gates", "bool"),
            reason=checked_text(reason, "reason"),
            **self._terms(expected, key),
        )
        return self._change(self._stub.Promote, request, timeout_s)

    def roll_back(
        self,
        revision: int,
        *,
        reason: str = "",
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Send nobody to a revision any more; where it was active, the one before it is again."""
        request = rollout_pb2.RollbackRequest(
            revision=_number(revision),
            reason=checked_text(reason, "reason"),
            **self._terms(expected, key),
        )
        return self._change(self._stub.Rollback, request, timeout_s)

    def retire(
        self,
        revision: int,
        *,
        reason: str = "",
        expected: int | None = None,
        key: str | None = None,
        timeout_s: float | None = None,
    ) -> Rollout:
        """Have the server let go of a revision; requests that it answers are finished first."""
        request = rollout_pb2.RetireRequest(
            revision=_number(revision),
            reason=checked_text(reason, "reason"),
            **self._terms(expected, key),
        )
        return self._change(self._stub.Retire, request, timeout_s)

    def get(self, revision: int, *, timeout_s: float | None = None) -> Rollout:
        """Return one revision, or raise NotFoundError."""
        request = rollout_pb2.GetRequest(revision=_number(revision))
        return self._change(self._stub.Get, request, timeout_s)

    def list(self, *, timeout_s: float | None = None) -> RevisionList:
        """Return all revisions of the server."""
        limit_s = self._limit_s(timeout_s)
        request = rollout_pb2.ListRequest()
        with translating():
            response = self._stub.List(request, timeout=limit_s, metadata=self._metadata)
        return parse_revisions(response.revisions)

    def watch(self) -> Generator[RevisionList, None, None]:
        """Yield what `list` returns, now and after every change, as long as the server serves.

        for revisions in client.watch(): print(revisions.active)

        The call is made at the first step, and ends where the generator is closed.
        """
        with translating():
            call = self._stub.Watch(rollout_pb2.WatchRequest(), metadata=self._metadata)
            try:
                for response in call:
                    yield parse_revisions(response.revisions)
            finally:
                call.cancel()

    def _stage(
        self, source: dict[str, Any], expected: int | None, key: str | None, timeout_s: float
    ) -> Rollout:
        request = rollout_pb2.StageRequest(**source, **self._terms(expected, key))
        return self._change(self._stub.Stage, request, timeout_s)

    def _change(
        self, method: Callable[..., _Changed], request: object, timeout_s: float | None
    ) -> Rollout:
        limit_s = self._limit_s(timeout_s)
        with translating():
            response = method(request, timeout=limit_s, metadata=self._metadata)
        return parse_rollout(response.rollout)

    def _send(self, upload: FileUpload, terms: dict[str, Any], limit_s: float) -> _Changed:
        """Send the files of an upload, and stop where one cannot be read."""
        with translating():
            call = self._stub.StageUpload.future(
                upload.messages(terms), timeout=limit_s, metadata=self._metadata
            )
            upload.cancel.set_result(call.cancel)
            try:
                return call.result()
            except grpc.FutureCancelledError as error:
                details = ErrorDetails(status=grpc.StatusCode.CANCELLED.name)
                closed = CallCancelledError("the call was closed before its end", details)
                raise upload.error or closed from error
            finally:
                call.cancel()

    def _terms(self, expected: int | None, key: str | None) -> dict[str, Any]:
        """What every change brings."""
        name = uuid4().hex if key is None else checked_text(key, "key")
        active = self.list().active if expected is None else expected
        return {
            "expected_revision": checked_integer(active, UINT64, "expected"),
            "idempotency_key": name,
        }

    def _limit_s(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else checked_timeout_s(timeout_s)


def _number(revision: object) -> int:
    return checked_integer(revision, UINT64, "revision")


def _metadata(token: object) -> tuple[tuple[str, str], ...]:
    if token is None:
        return ()
    text = checked_type(token, str, "token", "str")
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise InvalidRequestError.of_field("token", "must be printable ASCII, not empty")
    return (("authorization", f"Bearer {text}"),)
