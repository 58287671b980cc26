"""`rankloom health`: the exit code says whether a server takes calls."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from rankloom._cli.main import main

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthyServer:
    """Reports what the test sets, on a TCP port and a socket."""

    def __init__(self, folder: Path) -> None:
        self.health = health.HealthServicer()
        self.grpc = grpc.server(ThreadPoolExecutor(2))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.grpc)
        self.socket = f"unix:{folder}/health.sock"
        self.grpc.add_insecure_port(self.socket)
        self.target = f"127.0.0.1:{self.grpc.add_insecure_port('127.0.0.1:0')}"
        self.grpc.start()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HealthyServer]:
    running = HealthyServer(tmp_path)
    yield running
    running.grpc.stop(None).wait()


def test_a_server_that_serves_is_healthy(
    server: HealthyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in (server.target, server.socket):
        assert main(["health", "--server", target]) == 0
        assert capsys.readouterr().out == "SERVING\n"


@pytest.mark.parametrize(
    "status", [NOT_SERVING, health_pb2.HealthCheckResponse.UNKNOWN], ids=["not", "unknown"]
)
def test_any_other_status_is_not_serving(
    server: HealthyServer, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.health.set("", status)
    assert main(["health", "--server", server.target]) == 1
    assert capsys.readouterr().out == "NOT_SERVING\n"


def test_no_server_is_one_line(server: HealthyServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.grpc.stop(None).wait()
    assert main(["health", "--server", server.target]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("rankloom: ConnectionFailedError: ")
    assert found.err.count("\n") == 1


def test_a_wrong_address_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--server", "tcp://10.0.0.1:50051"]) == 2
    assert "write HOST:PORT without tcp://" in capsys.readouterr().err
