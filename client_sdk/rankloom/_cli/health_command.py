"""`rankloom health`: whether a server takes calls, as an exit code for probes.

It asks `grpc.health.v1` in bytes: two messages of one field each are no reason to need another
package, and a probe should start fast.
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

import grpc

from rankloom._cli.arguments import add_encryption, add_timeout
from rankloom._connection import open_channel
from rankloom._endpoint import Endpoint
from rankloom._policy import checked_timeout_s
from rankloom._rpc_errors import error_from_rpc

_CHECK: Final = "/grpc.health.v1.Health/Check"
_WHOLE_SERVER: Final = b""  # HealthCheckRequest without the name of a service
_SERVING: Final = b"\x08\x01"  # HealthCheckResponse of status 1


class HealthCommand:
    """Asks a server whether it takes calls; prints the answer."""

    name = "health"
    help = "ask whether a server takes calls: exit code 0 if it does, 1 if not"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--server",
            metavar="HOST:PORT",
            default="127.0.0.1:50051",
            help="address of the server, or unix:PATH (default: %(default)s)",
        )
        add_timeout(parser, 1.0)
        add_encryption(parser)

    def run(self, args: argparse.Namespace) -> int:
        endpoint = Endpoint.checked(args.server, args.root_certificates, args.plaintext)
        serving = _is_serving(endpoint, checked_timeout_s(args.timeout))
        sys.stdout.write("SERVING\n" if serving else "NOT_SERVING\n")
        return 0 if serving else 1


def _is_serving(endpoint: Endpoint, timeout_s: float) -> bool:
    with open_channel(endpoint) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
        try:
            return check(_WHOLE_SERVER, timeout=timeout_s) == _SERVING
        except grpc.RpcError as error:
            raise error_from_rpc(error, "", endpoint.target) from error
