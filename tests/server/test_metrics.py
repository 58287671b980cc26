"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

import os
import socket
import stat
import threading
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from rankloom_proto.v1.ranking_pb2 import RankRequest
from rankloom_server.errors import ListenError
from rankloom_server.metrics import ServerMetrics
from rankloom_server.metrics_http import metrics_served
from rankloom_server.rpc.lifecycle import RpcServer
from rankloom_server.rpc.listening import ListenAddress
from server.rankings import rank, request
from server.served_parts import ServedParts, ranking_server
from server.servers import failure_of, opened


@pytest.fixture
async def server(parts: ServedParts) -> AsyncIterator[RpcServer]:
    async with ranking_server(parts, prefix_cache_mib=1) as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, labels)
    assert found is not None, name
    return found


async def test_calls_and_memory_are_counted(server: RpcServer, parts: ServedParts) -> None:
    registry = server.metrics.registry
    async with opened(server) as target, grpc.aio.insecure_channel(target) as channel:
        before = value(registry, "rankloom_prefix_cache_misses_total")
        await rank(channel, request(parts))
        await rank(channel, request(parts))
        await failure_of(rank(channel, RankRequest()))
    count = "rankloom_call_seconds_count"
    assert value(registry, count, method="Rank", code="OK") == 2
    assert value(registry, count, method="Rank", code="INVALID_ARGUMENT") == 1
    assert value(registry, "rankloom_prefix_cache_misses_total") == before + 1
    assert value(registry, "rankloom_prefix_cache_hits_total") == 1
    assert 0 < value(registry, "rankloom_prefix_cache_bytes") <= 1 << 20
    assert value(registry, "rankloom_prefix_cache_max_bytes") == 1 << 20
    assert value(registry, "rankloom_experts_bytes") > 0
    assert value(registry, "rankloom_engine_waiting") == 0
    assert value(registry, "rankloom_engine_info", device="cpu", dtype="float32") == 1
    assert value(registry, "process_resident_memory_bytes") > 0


def test_they_are_read_over_http() -> None:
    metrics, port = ServerMetrics(), free_port()
    metrics.count_call("Rank", "OK", 0.25)
    address = ListenAddress("127.0.0.1", port)
    with metrics_served(metrics.registry, address):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            families = text_string_to_metric_families(answer.read().decode())
        assert "rankloom_call_seconds" in {family.name for family in families}
        with (
            pytest.raises(ListenError, match=str(port)),
            metrics_served(ServerMetrics().registry, address),
        ):
            pass
    with metrics_served(metrics.registry, address):
        pass  # the port is free again


def test_they_are_read_over_ipv6() -> None:
    address = ListenAddress("::1", free_port())
    with (
        metrics_served(ServerMetrics().registry, address),
        urllib.request.urlopen(f"http://{address}/metrics") as answer,
    ):
        assert answer.status == 200


def test_they_are_read_over_a_socket(tmp_path: Path) -> None:
    address = ListenAddress(f"unix:{tmp_path}/metrics.sock")
    with metrics_served(ServerMetrics().registry, address, 0o600):
        path = str(address.path)
        assert stat.filemode(os.stat(path).st_mode) == "srw-------"
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(path)
            caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: caller.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.0 200 OK")
        assert b"process_resident_memory_bytes" in answer
        with (
            pytest.raises(ListenError, match="another server listens there"),
            metrics_served(ServerMetrics().registry, address),
        ):
            pass
    assert not os.path.exists(path)


def test_without_a_port_nothing_listens() -> None:
    before = threading.active_count()
    with metrics_served(ServerMetrics().registry, None):
        assert threading.active_count() == before
