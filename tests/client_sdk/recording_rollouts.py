"""A RolloutService on a free port that keeps what it is sent, and fails as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from client_sdk.recording_server import Behaviour
from rankloom_proto.v1 import rollout_pb2 as wire
from rankloom_proto.v1 import rollout_pb2_grpc


class RecordingRollouts(rollout_pb2_grpc.RolloutServiceServicer):
    """`active` is what List answers; the first changes fail as `failures` say, one by one."""

    def __init__(self) -> None:
        self.changes: list[Any] = []
        self.chunks: list[tuple[str, int]] = []
        self.num_lists = 0
        self.active = 4
        self.failures: list[Behaviour] = []
        self._server = grpc.server(ThreadPoolExecutor(max_workers=8))
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def List(self, request: wire.ListRequest, context: grpc.ServicerContext) -> wire.ListResponse:
        self.num_lists += 1
        rollouts = [wire.Rollout(revision=self.active, state=wire.ROLLOUT_STATE_ACTIVE)]
        revisions = wire.Revisions(rollouts=rollouts, active=self.active)
        return wire.ListResponse(revisions=revisions)

    def Get(self, request: wire.GetRequest, context: grpc.ServicerContext) -> wire.GetResponse:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no test calls this")

    def Watch(
        self, request: wire.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.WatchResponse]:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no test calls this")

    def Stage(
        self, request: wire.StageRequest, context: grpc.ServicerContext
    ) -> wire.StageResponse:
        return wire.StageResponse(rollout=self._changed(request, context))

    def StageUpload(
        self, request_iterator: Iterator[wire.StageUploadRequest], context: grpc.ServicerContext
    ) -> wire.StageUploadResponse:
        header = next(request_iterator).header
        for each in request_iterator:
            self.chunks.append((each.chunk.name, len(each.chunk.data)))
        return wire.StageUploadResponse(rollout=self._changed(header, context))

    def StartShadow(
        self, request: wire.StartShadowRequest, context: grpc.ServicerContext
    ) -> wire.StartShadowResponse:
        return wire.StartShadowResponse(rollout=self._changed(request, context))

    def StartCanary(
        self, request: wire.StartCanaryRequest, context: grpc.ServicerContext
    ) -> wire.StartCanaryResponse:
        return wire.StartCanaryResponse(rollout=self._changed(request, context))

    def Promote(
        self, request: wire.PromoteRequest, context: grpc.ServicerContext
    ) -> wire.PromoteResponse:
        return wire.PromoteResponse(rollout=self._changed(request, context))

    def Rollback(
        self, request: wire.RollbackRequest, context: grpc.ServicerContext
    ) -> wire.RollbackResponse:
        return wire.RollbackResponse(rollout=self._changed(request, context))

    def Retire(
        self, request: wire.RetireRequest, context: grpc.ServicerContext
    ) -> wire.RetireResponse:
        return wire.RetireResponse(rollout=self._changed(request, context))

    def _changed(self, request: Any, context: grpc.ServicerContext) -> wire.Rollout:  # noqa: ANN401
        self.changes.append(request)
        if self.failures:
            self.failures.pop(0)(request, context)
        return wire.Rollout(revision=getattr(request, "revision", 5))
