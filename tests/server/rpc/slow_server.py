"""A server that is slow: `slow_server.py CALL_S DRAIN_S [HOST WARM_UP_S DRAIN_DELAY_S]`."""

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


async def main(
    call_s: float,
    drain_s: float,
    warm_up_s: float,
    drain_delay_s: float,
    *,
    host: str,
) -> None:
    async def warm_up() -> Facts:
        await asyncio.sleep(warm_up_s)
        return {}

    server = RpcServer(
        Admission(8), ["rankloom.v1.FeatureService"], warm_up=warm_up, reflects=False
    )
    service = SlowService(call_s)  # type: ignore[abstract]  # no other method is called
    features_pb2_grpc.add_FeatureServiceServicer_to_server(service, server.grpc)
    settings = ServerSettings(host=host, port=0, drain_s=drain_s, drain_delay_s=drain_delay_s)
    await server.serve(settings)


if __name__ == "__main__":
    logs.configure("info")
    call_s, drain_s, *others = sys.argv[1:]
    host, warm_up_s, drain_delay_s = others or ("127.0.0.1", "0", "0")
    numbers = map(float, (call_s, drain_s, warm_up_s, drain_delay_s))
    asyncio.run(main(*numbers, host=host))
