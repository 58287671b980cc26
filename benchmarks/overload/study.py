"""Peaks and loads beyond them, in turns, on one server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common.rank_calls import BenchmarkCall
from benchmarks.common.timing import progress
from benchmarks.overload.callers import OverloadOutcome, overload
from benchmarks.serve import load
from benchmarks.serve.processes import server, worker
from rankloom_server.config import Settings

LOADS = (1.1, 1.4, 2.0, 5.0)  # times the peak
WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class OverloadPlan:
    """How much is run. ``seconds``: of each load, and half as many of each peak."""

    seconds: float
    rounds: int = 2
    in_flight: int = 16
    deadline_s: float = 2.0


@dataclass(frozen=True, slots=True)
class OverloadRun:
    """One load, and the peak right before it, in calls per second."""

    load: float
    peak: float
    outcome: OverloadOutcome

    @property
    def goodput_over_peak(self) -> float:
        return self.outcome.goodput / self.peak


@dataclass(frozen=True, slots=True)
class OverloadStudy:
    """Findings, in the order in which they were made."""

    plan: OverloadPlan
    runs: tuple[OverloadRun, ...]


def run_overload_study(
    settings: Settings, calls: Sequence[BenchmarkCall], plan: OverloadPlan
) -> OverloadStudy:
    """Raises WorkerError or ServerStartError."""
    runs: list[OverloadRun] = []
    with worker() as callers, server(settings) as (address, _):

        def peak(seconds: float) -> float:
            began = time.perf_counter()
            latencies = callers.run(load.rank, address, calls, plan.in_flight, seconds)
            return len(latencies) / (time.perf_counter() - began)  # the last end after ``seconds``

        peak(min(WARM_UP_S, plan.seconds))
        for number in range(1, plan.rounds + 1):
            for factor in LOADS:
                progress(f"round {number} of {plan.rounds}: {factor:g} times the peak")
                best = peak(plan.seconds / 2)
                asked = (address, calls, factor * best, plan.seconds, plan.deadline_s)
                runs.append(OverloadRun(factor, best, callers.run(overload, *asked)))
    return OverloadStudy(plan, tuple(runs))
