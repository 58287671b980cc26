"""What a server counts, for Prometheus.

Labels are methods and status codes, so the number of series does not grow with callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:  # a feature server counts its calls too, and loads no torch
    from rankloom_engine.pool import EnginePool
    from rankloom_engine.runner import EngineRunner
    from rankloom_features.service import FeatureService
    from rankloom_server.pipeline import RankPipeline
    from rankloom_server.served_log import ServedLog
    from rankloom_server.stored_explanations import StoredExplanations

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ServerMetrics:
    """The metrics of one server; safe from several threads."""

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
        self._calls.labels(method, code).observe(seconds)

    def watch(self, pool: EnginePool) -> None:
        """Reads the engines' numbers at every scrape."""
        self.registry.register(_EngineCollector(pool))

    def watch_rankings(self, pipeline: RankPipeline) -> None:
        """Reads the counts of scored candidates at every scrape."""
        self.registry.register(_RankingCollector(pipeline))

    def watch_stored_explanations(self, stored: StoredExplanations) -> None:
        """Reads the counts of stored explanations at every scrape."""
        self.registry.register(_StoredCollector(stored))

    def watch_served_log(self, log: ServedLog) -> None:
        """Reads the log's counts at every scrape."""
        self.registry.register(_ServedLogCollector(log))

    def watch_events(self, service: FeatureService) -> None:
        """Reads the counts of recorded events at every scrape."""
        self.registry.register(_EventCollector(service))


class _RankingCollector(Collector):
    def __init__(self, pipeline: RankPipeline) -> None:
        self._pipeline = pipeline

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "rankloom_candidates_scored",
            "Candidates that the model scored",
            self._pipeline.num_scored,
        )
        yield CounterMetricFamily(
            "rankloom_candidates_prefiltered",
            "Candidates that a prefilter left to the trees",
            self._pipeline.num_prefiltered,
        )


class _StoredCollector(Collector):
    def __init__(self, stored: StoredExplanations) -> None:
        self._stored = stored

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "rankloom_stored_explanations_found",
            "Stored explanations that were answered",
            self._stored.num_found,
        )
        yield CounterMetricFamily(
            "rankloom_stored_explanations_missing",
            "Calls for a stored explanation that is not there",
            self._stored.num_missing,
        )


class _ServedLogCollector(Collector):
    def __init__(self, log: ServedLog) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "rankloom_served_log_written",
            "Rankings that were kept to learn from",
            self._log.num_written,
        )
        yield CounterMetricFamily(
            "rankloom_served_log_dropped",
            "Rankings that were not kept, under load or on a full disk",
            self._log.num_dropped,
        )


class _EventCollector(Collector):
    def __init__(self, service: FeatureService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "rankloom_events_recorded",
            "Events of answered calls of RecordEvents, repeats included",
            self._service.num_recorded,
        )
        yield CounterMetricFamily(
            "rankloom_users_forgotten",
            "Answered calls of ForgetUser",
            self._service.num_forgotten,
        )


class _EngineCollector(Collector):
    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    def _sum(self, number: Callable[[EngineRunner], float]) -> float:
        return sum(number(runner) for runner in self._pool.runners)

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "rankloom_engine",
            "Where the model runs, and in which number format",
            {"device": self._pool.hardware.device, "dtype": self._pool.hardware.dtype},
        )
        yield GaugeMetricFamily(
            "rankloom_engine_waiting",
            "Rankings and explanations that wait for the model",
            self._sum(lambda runner: runner.num_waiting),
        )
        yield GaugeMetricFamily(
            "rankloom_experts_bytes",
            "Memory of the experts' slots",
            self._sum(lambda r: r.expert_bytes),
        )
        yield GaugeMetricFamily(
            "rankloom_prefix_cache_bytes",
            "Memory of kept prefixes",
            self._sum(lambda r: r.prefixes.num_bytes),
        )
        yield GaugeMetricFamily(
            "rankloom_prefix_cache_max_bytes",
            "Memory that they may take",
            self._sum(lambda r: r.prefixes.max_bytes),
        )
        yield CounterMetricFamily(
            "rankloom_prefix_cache_hits",
            "Calls that found their prefix",
            self._sum(lambda r: r.prefixes.num_hits),
        )
        yield CounterMetricFamily(
            "rankloom_prefix_cache_misses",
            "Calls that did not",
            self._sum(lambda r: r.prefixes.num_misses),
        )
