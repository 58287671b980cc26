"""A RolloutService on a free port: it keeps the messages that arrive, and fails as scripted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from client_sdk.recording_server import Behaviour
from rankloom.testing._in_process import InProcessServer
from rankloom_proto.v1 import rollout_pb2 as wire
from rankloom_proto.v1 import rollout_pb2_grpc

CHANGES = ("Stage", "StartShadow", "StartCanary", "Promote", "Rollback", "Retire")


class RecordingRollouts(InProcessServer):
    """`active` is what List answers; the first changes fail as `failures` say, one by one."""

    def __init__(self) -> None:
        self.changes: list[Any] = []
        self.chunks: list[tuple[str, int]] = []
        self.num_lists = 0
        self.active = 4
        self.failures: list[Behaviour] = []
        self.watched = threading.Event()  # set when a Watch has ended
        super().__init__(self._add_service)

    def _add_service(self, server: grpc.Server) -> None:
        # Methods that no test calls answer UNIMPLEMENTED, as the generated class does.
        servicer: Any = rollout_pb2_grpc.RolloutServiceServicer
        servicer = servicer()
        servicer.List = self._list
        servicer.Watch = self._watch
        servicer.StageUpload = self._upload
        for method in CHANGES:
            setattr(servicer, method, self._changer(getattr(wire, f"{method}Response")))
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(servicer, server)

    def _revisions(self) -> wire.Revisions:
        rollouts = [wire.Rollout(revision=self.active, state=wire.ROLLOUT_STATE_ACTIVE)]
        return wire.Revisions(rollouts=rollouts, active=self.active)

    def _list(self, request: wire.ListRequest, context: grpc.ServicerContext) -> wire.ListResponse:
        self.num_lists += 1
        return wire.ListResponse(revisions=self._revisions())

    def _watch(
        self, request: wire.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.WatchResponse]:
        context.add_callback(self.watched.set)
        yield wire.WatchResponse(revisions=self._revisions())
        self.active += 1
        yield wire.WatchResponse(revisions=self._revisions())
        self.watched.wait(30.0)

    def _upload(
        self, request_iterator: Iterator[wire.StageUploadRequest], context: grpc.ServicerContext
    ) -> wire.StageUploadResponse:
        header = next(request_iterator).header
        for each in request_iterator:
            self.chunks.append((each.chunk.name, len(each.chunk.data)))
        answer: wire.StageUploadResponse = self._changer(wire.StageUploadResponse)(header, context)
        return answer

    def _changer(self, response: Callable[..., Any]) -> Behaviour:
        def change(request: Any, context: grpc.ServicerContext) -> object:  # noqa: ANN401
            self.changes.append(request)
            if self.failures:
                self.failures.pop(0)(request, context)
            return response(rollout=wire.Rollout(revision=getattr(request, "revision", 5)))

        return change
