"""A server whose calls take long: `slow_server.py CALL_S DRAIN_S`."""

from __future__ import annotations

import asyncio
import sys

from rankloom_proto.v1 import features_pb2, features_pb2_grpc
from rankloom_server import logs
from rankloom_server.admission import Admission
from rankloom_server.config import ServerSettings
from rankloom_server.rpc.lifecycle import Facts, RpcServer


class SlowService(features_pb2_grpc.FeatureServiceServicer):
    def __init__(self, call_s: float) -> None:
        self._call_s = call_s

    async def GetUserFeatures(
        self, request: features_pb2.GetUserFeaturesRequest, context: object
    ) -> features_pb2.GetUserFeaturesResponse:
        sys.stderr.write("{}\n")
        sys.stderr.flush()
        await asyncio.sleep(self._call_s)
        return features_pb2.GetUserFeaturesResponse()


async def main(call_s: float, drain_s: float) -> None:
    async def warm_up() -> Facts:
        return {}

    server = RpcServer(
        Admission(8), ["rankloom.v1.FeatureService"], warm_up=warm_up, reflects=False
    )
    features_pb2_grpc.add_FeatureServiceServicer_to_server(SlowService(call_s), server.grpc)
    await server.serve(ServerSettings(port=0, drain_s=drain_s))


if __name__ == "__main__":
    logs.configure("info")
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
