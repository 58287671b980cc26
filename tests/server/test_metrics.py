"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import AsyncIterator

import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from rankloom_proto.v1.ranking_pb2 import RankRequest
from rankloom_server.errors import ListenError
from rankloom_server.metrics import ServerMetrics
from rankloom_server.rpc.lifecycle import RpcServer
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
    assert value(registry, "process_resident_memory_bytes") > 0


def test_they_are_read_over_http() -> None:
    metrics, port = ServerMetrics(), free_port()
    metrics.count_call("Rank", "OK", 0.25)
    with metrics.exposed("127.0.0.1", port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            families = text_string_to_metric_families(answer.read().decode())
        assert "rankloom_call_seconds" in {family.name for family in families}
        with (
            pytest.raises(ListenError, match=str(port)),
            ServerMetrics().exposed("127.0.0.1", port),
        ):
            pass
    with metrics.exposed("127.0.0.1", port):
        pass  # the port is free again


def test_without_a_port_nothing_listens() -> None:
    before = threading.active_count()
    with ServerMetrics().exposed("127.0.0.1", None):
        assert threading.active_count() == before
