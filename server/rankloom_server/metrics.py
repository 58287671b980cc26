"""What a server counts, for Prometheus: GET /metrics on a port of its own.

Labels are methods and status codes, so there are as many series as those, whoever calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rankloom_server.errors import ListenError

if TYPE_CHECKING:  # a feature server counts its calls too, and loads no torch
    from rankloom_engine.runner import EngineRunner

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The numbers of one server; safe from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._calls = Histogram(
            "rankloom_call_seconds",
            "Time from a call's arrival to its end",
            ["method", "code"],
            registry=self.registry,
            buckets=_SECONDS,
        )

    def count_call(self, method: str, code: str, seconds: float) -> None:
        """One call has ended."""
        self._calls.labels(method, code).observe(seconds)

    def watch(self, runner: EngineRunner) -> None:
        """Reads the engine's numbers whenever they are asked for."""
        self.registry.register(_EngineCollector(runner))

    @contextmanager
    def exposed(self, host: str, port: int | None) -> Iterator[None]:
        """Answers GET /metrics meanwhile, unless there is no port. Raises ListenError."""
        if port is None:
            yield
            return
        try:
            server, thread = start_http_server(port, host.strip("[]"), self.registry)
        except OSError as error:
            raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _EngineCollector(Collector):
    def __init__(self, runner: EngineRunner) -> None:
        self._runner = runner

    def collect(self) -> Iterator[Metric]:
        prefixes = self._runner.prefixes
        yield GaugeMetricFamily(
            "rankloom_engine_waiting",
            "Rankings and explanations that wait for the model",
            self._runner.num_waiting,
        )
        yield GaugeMetricFamily(
            "rankloom_experts_bytes", "Memory of the experts' slots", self._runner.expert_bytes
        )
        yield GaugeMetricFamily(
            "rankloom_prefix_cache_bytes", "Memory of kept prefixes", prefixes.num_bytes
        )
        yield GaugeMetricFamily(
            "rankloom_prefix_cache_max_bytes", "Memory that they may take", prefixes.max_bytes
        )
        yield CounterMetricFamily(
            "rankloom_prefix_cache_hits", "Calls that found their prefix", prefixes.num_hits
        )
        yield CounterMetricFamily(
            "rankloom_prefix_cache_misses", "Calls that did not", prefixes.num_misses
        )
