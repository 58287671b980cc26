"""The comparison with a server is only worth something if both sides do the same work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from benchmarks.common.bundles import calls_of, with_random_decoder
from benchmarks.common.children import child_ids
from benchmarks.common.rank_calls import BenchmarkCall
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.common.workload import ModelShape
from benchmarks.serve import in_process, load, report, study
from benchmarks.serve.processes import WorkerError, cpu_s_of, worker
from benchmarks.serve.study import ServePhase, ServePlan, ServeRound

PHASES = {"grpc", "inprocess", "grpc_alone", "inprocess_alone", "grpc_checked"}
NUM_CALLS = 12


@pytest.fixture(scope="module")
def tiny_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained bundle with a random decoder that takes a millisecond a call."""
    folder: Path = tmp_path_factory.mktemp("serve") / "bundle"
    shape = ModelShape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    with_random_decoder(bundle_folder, folder, shape)
    return folder


def test_both_sides_do_the_same_work_and_every_process_is_ended(tiny_bundle: Path) -> None:
    settings = in_process.server_settings(tiny_bundle, "bfloat16", 1)
    calls = calls_of(tiny_bundle)[:NUM_CALLS]
    resource_tracker.ensure_running()  # a process that multiprocessing keeps
    before = child_ids()
    found = study.run_serve_study(settings, calls, ServePlan(0.3, pairs=2, rounds=1))
    assert child_ids() == before
    assert found.difference <= study.TOLERANCE
    assert (found.prompts.prefix_tokens, found.prompts.candidate_tokens) == (205, 12)
    assert sum(found.prompts.routes.values()) == NUM_CALLS
    assert len(found.rounds) == 2
    for each in found.rounds:
        assert each.phases.keys() == PHASES
        assert all(phase.cpu_s > 0 and phase.wall_s >= 0.3 for phase in each.phases.values())
        assert all(phase.latencies and not phase.num_reused for phase in each.phases.values())
        assert len(each.added_ms) == 1
        assert 0.0 <= each.stolen < 1.0
        assert len(each.checks) == round(0.3 * found.plan.checks_per_s)
    # A server does all that its engine does, and more; beside a tiny model it shows.
    assert 0.0 < study.ratios(found.rounds)["grpc_over_inprocess"] < 1.0
    figures = json.loads(json.dumps(report.figures(found)))
    assert figures["rounds"]
    asked = {"model": "tiny", "threads": 1, "in_flight": found.plan.in_flight}
    result = BenchmarkResult(
        room="serve",
        facts=RunFacts.now(),
        dtype="bfloat16",
        settings=asked,
        figures=figures,
    )
    assert "| `health_p99_ms` |" in report.tables(result)


def test_scores_of_other_calls_are_not_taken_for_the_same(tiny_bundle: Path) -> None:
    """The same items for another user differ by far more than what is tolerated."""
    settings = in_process.server_settings(tiny_bundle, "bfloat16", 1)
    first, second, *_ = calls_of(tiny_bundle)
    swapped = BenchmarkCall(second.user, first.items)
    own, other = (in_process.scores(settings, (call,), 1) for call in (first, swapped))
    assert study.largest_difference(own, own) == 0.0
    with pytest.raises(study.ScoresDifferError, match="nothing was timed"):
        study.largest_difference(own, other)
    with pytest.raises(study.ScoresDifferError, match="different items"):
        study.largest_difference(own, [{**own[0], "another": 0.0}])


def test_ratios_of_rounds_worked_out_by_hand() -> None:
    def phase(num: int, cpu_s: float, latency_s: float) -> ServePhase:
        return ServePhase([latency_s] * num, cpu_s, 1.0)

    def one(grpc_cpu_s: float, added_ms: list[float], check_s: float) -> ServeRound:
        phases = {
            "grpc": phase(8, grpc_cpu_s, 0.5),
            "inprocess": phase(10, 2.0, 0.5),  # 5 a second
        }
        return ServeRound(phases, added_ms, [check_s] * 100, 0.0)

    rounds = [one(2.0, [2.0, 8.0], 0.001), one(1.6, [3.0], 0.001), one(4.0, [7.0, 1.0], 0.009)]
    found = study.ratios(rounds)  # 4 / 5, 5 / 5 and 2 / 5
    assert found == {"grpc_over_inprocess": 0.8, "grpc_added_p50_ms": 3.0, "health_p99_ms": 9.0}


async def test_callers_wait_for_answers_and_all_that_began_counts() -> None:
    running, most = 0, 0
    seen: list[str] = []

    async def work(turn: str) -> None:
        nonlocal running, most
        running += 1
        seen.append(turn)
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    latencies = await load.closed_loop(work, "abc", 4, 0.12)
    assert (most, running) == (4, 0)
    assert len(latencies) == len(seen) >= 8
    assert seen[:4] == ["a", "b", "c", "a"]
    assert min(latencies) >= 0.05
    seen.clear()
    await load.closed_loop(work, "abc", 4, 0.01, 2)
    assert seen == ["c", "a", "b", "c"]


async def test_a_check_that_a_stalled_server_delays_is_timed_from_when_it_was_due() -> None:
    num = 0

    async def work() -> None:
        nonlocal num
        num += 1
        if num == 1:
            time.sleep(0.2)  # stalls the loop, on purpose

    latencies = await load.open_loop(work, 50.0, 0.2)
    assert len(latencies) == 10
    assert latencies[1] >= 0.17
    assert sum(one > 0.05 for one in latencies) >= 6


def test_a_worker_reports_what_failed_and_that_it_ended() -> None:
    with worker() as process:
        assert process.run(os.getpid) == process.pid
        assert cpu_s_of(process.pid) > 0.0
        with pytest.raises(WorkerError, match="FileNotFoundError"):
            process.run(os.stat, "no-such-file")
        assert process.run(os.getpid) == process.pid
        process.begin(time.sleep, 60)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended before"):
            process.result()
