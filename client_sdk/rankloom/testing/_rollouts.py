"""RolloutService of a fake server: revisions in memory, and the changes between their states."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import grpc

from rankloom._rollouts import ON_TRIAL, RevisionList, Rollout, RolloutState
from rankloom.errors import ErrorReason, NotFoundError, PreconditionError, RankloomError
from rankloom.testing._answers import REVISION, Delayed, Script, fault, play
from rankloom.testing._calls import Call, RolloutCall
from rankloom.testing._parsing import parse_gates
from rankloom.testing._refusals import fail
from rankloom.testing._wire import revisions_to_wire, rollout_to_wire
from rankloom_proto.v1 import rollout_pb2, rollout_pb2_grpc

RolloutAnswer: TypeAlias = (
    Rollout
    | RankloomError
    | type[RankloomError]
    | Delayed[Any]
    | Callable[[RolloutCall], Rollout | None]
    | None
)

_STATES: Final = {
    "start_shadow": RolloutState.SHADOW,
    "start_canary": RolloutState.CANARY,
    "promote": RolloutState.ACTIVE,
    "roll_back": RolloutState.ROLLED_BACK,
    "retire": RolloutState.RETIRED,
}
_TRYABLE: Final = ON_TRIAL | {RolloutState.WARMED}
_BEFORE: Final = {
    RolloutState.SHADOW: {RolloutState.WARMED},
    RolloutState.CANARY: _TRYABLE,
    RolloutState.ACTIVE: _TRYABLE,
    RolloutState.ROLLED_BACK: _TRYABLE | {RolloutState.ACTIVE},
    RolloutState.RETIRED: {
        RolloutState.STAGED,
        RolloutState.WARMED,
        RolloutState.ROLLED_BACK,
        RolloutState.QUARANTINED,
    },
}
_FIRST: Final = Rollout(
    revision=REVISION.number,
    bundle_digest=REVISION.bundle_digest,
    state=RolloutState.ACTIVE,
    percent=0,
    reason="",
    back_to=0,
    leases=0,
    loaded=True,
    judgement=None,
)


class FakeLedger:
    """The revisions of the server. It starts with revision 1 active, and asks for no gates."""

    def __init__(self) -> None:
        self._rollouts = {_FIRST.revision: _FIRST}
        self._done: dict[str, int] = {}
        self._changed = threading.Condition()
        self._version = 0

    def revisions(self) -> RevisionList:
        """Return all of them, as `RolloutClient.list`."""
        with self._changed:
            return RevisionList(
                tuple(self._rollouts.values()), self._active(), 0, 0, datetime.now(UTC)
            )

    def get(self, revision: int) -> Rollout:
        """Return one revision, or raise NotFoundError."""
        with self._changed:
            if revision not in self._rollouts:
                message = f"there is no revision {revision}"
                raise fail(NotFoundError, message, reason=ErrorReason.REVISION_UNKNOWN)
            return self._rollouts[revision]

    def change(self, call: RolloutCall) -> Rollout:
        """Make the change that a call asks for, once for each key; return its revision."""
        key, expected = call.arguments["key"], call.arguments["expected"]
        with self._changed:
            if key in self._done:
                return self._rollouts[self._done[key]]
            if expected != self._active():
                raise fail(
                    PreconditionError,
                    f"revision {self._active()} is active, not {expected}",
                    reason=ErrorReason.REVISION_STALE,
                    current=self._active(),
                )
            state = _STATES.get(call.method)
            changed = self._moved(call, state) if state else self._staged()
            self.put(changed)
            self._done[key] = changed.revision
        return changed

    def put(self, rollout: Rollout) -> None:
        """Add a revision, or replace it."""
        with self._changed:
            self._rollouts[rollout.revision] = rollout
            self._version += 1
            self._changed.notify_all()

    def watch(self, context: grpc.ServicerContext) -> Iterator[RevisionList]:
        """Yield all revisions now and after every change, until the call ends."""
        context.add_callback(self._wake)
        seen = -1
        while context.is_active():
            with self._changed:
                if seen == self._version:
                    self._changed.wait()
                    continue
                seen, found = self._version, self.revisions()
            yield found

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _active(self) -> int:
        states = ((each.revision, each.state) for each in self._rollouts.values())
        return next((number for number, state in states if state is RolloutState.ACTIVE), 0)

    def _staged(self) -> Rollout:
        number = max(self._rollouts) + 1
        digest = f"fake-{number}"
        return replace(
            _FIRST, revision=number, bundle_digest=digest, state=RolloutState.WARMED, percent=0
        )

    def _moved(self, call: RolloutCall, state: RolloutState) -> Rollout:
        before = self.get(call.arguments["revision"])
        if before.state not in _BEFORE[state]:
            message = f"revision {before.revision} is {before.state}: {call.method} is impossible"
            raise fail(PreconditionError, message, reason=ErrorReason.WRONG_STATE)
        others = {each.state for each in self._rollouts.values() if each is not before}
        if state in ON_TRIAL | {RolloutState.ACTIVE} and others & ON_TRIAL:
            message = "another revision is on trial; end its trial first"
            raise fail(PreconditionError, message, reason=ErrorReason.WRONG_STATE)
        back_to = before.back_to
        if state is RolloutState.ACTIVE:
            back_to = self._active()
            self._set_state(back_to, RolloutState.WARMED)
        if state is RolloutState.ROLLED_BACK and before.state is RolloutState.ACTIVE:
            self._set_state(back_to, RolloutState.ACTIVE)
        return replace(
            before,
            state=state,
            percent=call.arguments.get("percent", 0),
            reason=call.arguments.get("reason", ""),
            back_to=back_to,
            loaded=state not in (RolloutState.RETIRED, RolloutState.ROLLED_BACK),
        )

    def _set_state(self, revision: int, state: RolloutState) -> None:
        if revision in self._rollouts:
            self._rollouts[revision] = replace(self._rollouts[revision], state=state)


class FakeRollouts(rollout_pb2_grpc.RolloutServiceServicer):
    """Answers changes as scripted, and otherwise from its ledger."""

    def __init__(self, record: Callable[[Call], None]) -> None:
        self._record = record
        self.changes = Script[RolloutAnswer](None)
        self.ledger = FakeLedger()

    def Stage(
        self, request: rollout_pb2.StageRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.StageResponse:
        """Stage a bundle or an expert."""
        if request.HasField("expert"):
            given = {"name": request.expert.name, "url": request.expert.url}
            return rollout_pb2.StageResponse(
                rollout=self._change("stage_expert", given, request, context)
            )
        given = {"url": request.bundle_url}
        return rollout_pb2.StageResponse(rollout=self._change("stage", given, request, context))

    def StageUpload(
        self,
        request_iterator: Iterator[rollout_pb2.StageUploadRequest],
        context: grpc.ServicerContext,
    ) -> rollout_pb2.StageUploadResponse:
        """Stage the files of an upload; their content is dropped."""
        header = next(request_iterator).header
        files: dict[str, int] = {}
        for each in request_iterator:
            files[each.chunk.name] = files.get(each.chunk.name, 0) + len(each.chunk.data)
        given = {"expert": header.expert or None, "files": files}
        return rollout_pb2.StageUploadResponse(
            rollout=self._change("upload", given, header, context)
        )

    def StartShadow(
        self, request: rollout_pb2.StartShadowRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.StartShadowResponse:
        """Make a revision a shadow."""
        gates = parse_gates(request.gates) if request.HasField("gates") else None
        given = {"revision": request.revision, "percent": request.percent, "gates": gates}
        return rollout_pb2.StartShadowResponse(
            rollout=self._change("start_shadow", given, request, context)
        )

    def StartCanary(
        self, request: rollout_pb2.StartCanaryRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.StartCanaryResponse:
        """Make a revision a canary."""
        gates = parse_gates(request.gates) if request.HasField("gates") else None
        given = {"revision": request.revision, "percent": request.percent, "gates": gates}
        return rollout_pb2.StartCanaryResponse(
            rollout=self._change("start_canary", given, request, context)
        )

    def Promote(
        self, request: rollout_pb2.PromoteRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.PromoteResponse:
        """Make a revision the active one."""
        given = {
            "revision": request.revision,
            "without_gates": request.without_gates,
            "reason": request.reason,
        }
        return rollout_pb2.PromoteResponse(rollout=self._change("promote", given, request, context))

    def Rollback(
        self, request: rollout_pb2.RollbackRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.RollbackResponse:
        """Roll a revision back."""
        given = {"revision": request.revision, "reason": request.reason}
        return rollout_pb2.RollbackResponse(
            rollout=self._change("roll_back", given, request, context)
        )

    def Retire(
        self, request: rollout_pb2.RetireRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.RetireResponse:
        """Retire a revision."""
        given = {"revision": request.revision, "reason": request.reason}
        return rollout_pb2.RetireResponse(rollout=self._change("retire", given, request, context))

    def Get(
        self, request: rollout_pb2.GetRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.GetResponse:
        """Return one revision."""
        call = self._recorded("get", {"revision": request.revision}, context)
        found = play(lambda _: self.ledger.get(request.revision), call, context)
        return rollout_pb2.GetResponse(rollout=rollout_to_wire(found))  # type: ignore[arg-type]

    def List(
        self, request: rollout_pb2.ListRequest, context: grpc.ServicerContext
    ) -> rollout_pb2.ListResponse:
        """Return all revisions."""
        self._recorded("list", {}, context)
        return rollout_pb2.ListResponse(revisions=revisions_to_wire(self.ledger.revisions()))

    def Watch(
        self, request: rollout_pb2.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[rollout_pb2.WatchResponse]:
        """Return all revisions now and after every change."""
        self._recorded("watch", {}, context)
        for revisions in self.ledger.watch(context):
            yield rollout_pb2.WatchResponse(revisions=revisions_to_wire(revisions))

    def _recorded(
        self, method: str, given: dict[str, Any], context: grpc.ServicerContext
    ) -> RolloutCall:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        token = metadata.get("authorization", "").removeprefix("Bearer ") or None
        call = RolloutCall(method=method, arguments=given, token=token)
        self._record(call)
        return call

    def _change(
        self,
        method: str,
        given: dict[str, Any],
        request: Any,  # noqa: ANN401
        context: grpc.ServicerContext,
    ) -> rollout_pb2.Rollout:
        """Record the call; answer with the script, or else with the ledger."""
        guard = {"expected": request.expected_revision, "key": request.idempotency_key}
        call = self._recorded(method, {**given, **guard}, context)
        answer = play(self.changes.take(), call, context)
        if answer is None:
            answer = play(self.ledger.change, call, context)
        elif isinstance(answer, Rollout):
            self.ledger.put(answer)
        if not isinstance(answer, Rollout):
            fault(f"a rollout was scripted as {type(answer).__name__}", context)
        return rollout_to_wire(answer)
