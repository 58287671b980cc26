"""The server and the engine alone, in turns, and what each of them costs.

One and the same pass takes up to 1 ms of 50 longer in one process than in another, for as long as
both live, whether server or engine. So both sides are started anew several times.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.common.timing import progress, stolen_s
from benchmarks.serve import in_process, load
from benchmarks.serve.in_process import BenchmarkCalls, CallTimes, PromptFacts
from benchmarks.serve.processes import BenchmarkWorker, cpu_s_of, server, worker
from rankloom_server.config import Settings

CHECKED = 5  # calls
TOLERANCE = 1e-2  # of a score: bfloat16 rounds differently in batches of other shapes
SLICE_S = 0.5  # of calls one at a time, before the other side's turn
SLICE_CALLS = 16  # about as many as fit in a slice; the next slice goes on with other users
LEAD_S = 0.5  # of load before the first health check, and after the last one
WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class ServePlan:
    """How much is run: ``rounds`` with each of ``pairs`` of fresh processes.

    ``seconds``: per phase of a round.
    """

    seconds: float
    pairs: int = 6
    rounds: int = 2
    in_flight: int = 16
    checks_per_s: float = 50.0


@dataclass(frozen=True, slots=True)
class ServePhase:
    """A stretch of calls. ``latencies``: seconds; ``cpu_s``: of the process that answers."""

    latencies: list[float]
    cpu_s: float
    wall_s: float
    num_reused: int = 0

    def rate(self, *, wall: bool = False) -> float:
        """Calls per CPU-second, or per second on the wall."""
        return len(self.latencies) / (self.wall_s if wall else self.cpu_s)

    def p50_ms(self) -> float:
        """Median latency."""
        return 1e3 * statistics.median(self.latencies)


@dataclass(frozen=True, slots=True)
class ServeRound:
    """Every phase once.

    ``added_ms``: for each slice of calls one at a time, p50 over gRPC − p50 of the engine alone.
    ``checks``: seconds of each health check under load. ``stolen``: share of the cores' time that
    the machine's host gave to others meanwhile.
    """

    phases: dict[str, ServePhase]
    added_ms: list[float]
    checks: list[float]
    stolen: float


@dataclass(frozen=True, slots=True)
class ServeStudy:
    """Findings by round. ``difference``: the largest between both sides' scores of an item."""

    plan: ServePlan
    prompts: PromptFacts
    difference: float
    rounds: list[ServeRound]


class ScoresDifferError(Exception):
    """Both sides do not score the same, so comparing their costs means nothing."""


def run_serve_study(settings: Settings, calls: BenchmarkCalls, plan: ServePlan) -> ServeStudy:
    """Compares the scores of both sides, then times them. Raises ScoresDifferError."""
    rounds: list[ServeRound] = []
    differences = []
    for pair in range(plan.pairs):
        with _sides(settings, calls, engine_first=bool(pair % 2)) as sides:
            progress("comparing the scores of both sides")
            differences.append(largest_difference(*sides.scores()))
            prompts = sides.engine.run(in_process.describe, settings, calls)
            sides.round(0, plan, min(WARM_UP_S, plan.seconds))
            for _ in range(plan.rounds):
                rounds.append(sides.round(len(rounds) + 1, plan, plan.seconds))
    return ServeStudy(plan, prompts, max(differences), rounds)


def ratios(rounds: Sequence[ServeRound]) -> dict[str, float]:
    """Medians of the rounds' own ratios and of all slices; p99 of all health checks together."""
    phases = [each.phases for each in rounds]
    over = [each["grpc"].rate() / each["inprocess"].rate() for each in phases]
    added = [one for each in rounds for one in each.added_ms]
    checks = [one for each in rounds for one in each.checks]
    return {
        "grpc_over_inprocess": round(statistics.median(over), 3),
        "grpc_added_p50_ms": round(statistics.median(added), 3),
        "health_p99_ms": round(1e3 * float(np.percentile(checks, 99)), 3),
    }


def largest_difference(
    served: Sequence[dict[str, float]], scored: Sequence[dict[str, float]]
) -> float:
    """The largest difference between two scores of an item. Raises ScoresDifferError."""
    pairs = list(zip(served, scored, strict=True))
    if any(one.keys() != other.keys() for one, other in pairs):
        raise ScoresDifferError("the two sides scored different items: nothing was timed")
    found = max(abs(one[item] - other[item]) for one, other in pairs for item in one)
    if not found <= TOLERANCE:
        raise ScoresDifferError(
            f"scores over gRPC and in process differ by {found:.3g}, more than {TOLERANCE:g}: "
            "nothing was timed"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Sides:
    """A running server, and the processes that call it or its engine."""

    settings: Settings
    calls: BenchmarkCalls
    address: str
    server_pid: int
    engine: BenchmarkWorker
    load: BenchmarkWorker
    probe: BenchmarkWorker

    def scores(self) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """For a few calls, over gRPC and in process."""
        served = self.load.run(load.scores, self.address, self.calls[:CHECKED])
        return served, self.engine.run(in_process.scores, self.settings, self.calls, CHECKED)

    def round(self, number: int, plan: ServePlan, seconds: float) -> ServeRound:
        """Every phase once, so that all meet the same load of the machine; 0 is the warm-up."""
        title = f"round {number} of {plan.pairs * plan.rounds}" if number else "warm-up"
        stolen, began = stolen_s(), time.perf_counter()
        progress(f"{title}: {plan.in_flight} in flight, over gRPC and in process")
        grpc, inprocess = self._pair(plan.in_flight, seconds)
        progress(f"{title}: one in flight, over gRPC and in process")
        num_slices = max(1, round(seconds / SLICE_S))
        indexes = range(number * num_slices, (number + 1) * num_slices)
        slices = [self._pair(1, seconds / num_slices, SLICE_CALLS * index) for index in indexes]
        progress(f"{title}: health under load")
        checked, checks = self._health(plan, seconds)
        phases = {
            "grpc": grpc,
            "inprocess": inprocess,
            "grpc_alone": _joined([one for one, _ in slices]),
            "inprocess_alone": _joined([other for _, other in slices]),
            "grpc_checked": checked,
        }
        added_ms = [one.p50_ms() - other.p50_ms() for one, other in slices]
        cores_s = (os.cpu_count() or 1) * (time.perf_counter() - began)
        return ServeRound(phases, added_ms, checks, (stolen_s() - stolen) / cores_s)

    def _pair(
        self, in_flight: int, seconds: float, first: int = 0
    ) -> tuple[ServePhase, ServePhase]:
        """The same calls over gRPC and then in process."""
        turn = in_flight, seconds, first % len(self.calls)
        return self._grpc(*turn), self._inprocess(*turn)

    def _grpc(self, in_flight: int, seconds: float, first: int) -> ServePhase:
        args = (self.address, self.calls, in_flight, seconds, first)
        return _timed(self.server_pid, lambda: CallTimes(self.load.run(load.rank, *args), 0))

    def _inprocess(self, in_flight: int, seconds: float, first: int) -> ServePhase:
        args = (self.settings, self.calls, in_flight, seconds, first)
        return _timed(self.engine.pid, lambda: self.engine.run(in_process.score, *args))

    def _health(self, plan: ServePlan, seconds: float) -> tuple[ServePhase, list[float]]:
        """Calls as before, and seconds of each health check beside them."""
        checks: list[float] = []

        def work() -> CallTimes:
            loaded = (self.address, self.calls, plan.in_flight, seconds + 2 * LEAD_S)
            self.load.begin(load.rank, *loaded)
            probed = (self.address, LEAD_S, plan.checks_per_s, seconds)
            checks.extend(self.probe.run(load.check_health, *probed))
            return CallTimes(self.load.result(), 0)

        return _timed(self.server_pid, work), checks


@contextmanager
def _sides(settings: Settings, calls: BenchmarkCalls, *, engine_first: bool) -> Iterator[_Sides]:
    """``engine_first``: whether the engine allocates its memory before the server does."""
    with ExitStack() as stack:
        progress("starting the server, the engine and their callers")
        engine, callers, probe = (stack.enter_context(worker()) for _ in range(3))
        if engine_first:
            engine.run(in_process.describe, settings, calls)
        address, pid = stack.enter_context(server(settings))
        yield _Sides(settings, calls, address, pid, engine, callers, probe)


def _joined(slices: Sequence[ServePhase]) -> ServePhase:
    return ServePhase(
        [one for each in slices for one in each.latencies],
        sum(each.cpu_s for each in slices),
        sum(each.wall_s for each in slices),
        sum(each.num_reused for each in slices),
    )


def _timed(pid: int, work: Callable[[], CallTimes]) -> ServePhase:
    """Runs it once, with the CPU time that the process ``pid`` takes meanwhile."""
    cpu, wall = cpu_s_of(pid), time.perf_counter()
    found = work()
    cpu_s, wall_s = cpu_s_of(pid) - cpu, time.perf_counter() - wall
    return ServePhase(found.latencies, cpu_s, wall_s, found.num_reused)
