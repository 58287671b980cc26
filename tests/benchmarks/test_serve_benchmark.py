"""The server's benchmark is only worth something if both sides do the same work."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rankloom_server.config import Settings

FOLDER = str(Path(__file__).parents[2] / "benchmarks")
NAMES = ("bundle", "inprocess", "load", "processes", "report", "study")
PHASES = {"grpc", "inprocess", "grpc_alone", "inprocess_alone", "grpc_checked"}
NUM_CALLS = 12


@pytest.fixture(scope="module")
def serve() -> Iterator[Any]:
    """The benchmark's modules; its folder is on the path as long as they are used."""
    sys.path.append(FOLDER)  # processes that are begun find the modules there too
    try:
        yield SimpleNamespace(
            **{name: importlib.import_module(f"serve_{name}") for name in NAMES},
            workload=importlib.import_module("workload"),
        )
    finally:
        sys.path.remove(FOLDER)


@pytest.fixture(scope="module")
def tiny_bundle(serve: Any, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ANN401
    """A trained bundle with a random decoder that takes a millisecond a call."""
    folder: Path = tmp_path_factory.mktemp("serve") / "bundle"
    shape = serve.workload.Shape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    serve.bundle.with_random_decoder(bundle_folder, folder, shape)
    return folder


def test_both_sides_do_the_same_work_and_every_process_is_ended(
    serve: Any,  # noqa: ANN401
    tiny_bundle: Path,
) -> None:
    settings = Settings(bundle=tiny_bundle, dtype="bfloat16", prefix_cache_mib=0)
    calls = serve.bundle.calls_of(tiny_bundle)[:NUM_CALLS]
    resource_tracker.ensure_running()  # a process that multiprocessing keeps
    before = serve.processes.children()
    found = serve.study.study(settings, calls, serve.study.Plan(0.3, pairs=2, rounds=1))
    assert serve.processes.children() == before
    assert found.difference <= serve.study.TOLERANCE
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
    assert 0.0 < serve.study.ratios(found.rounds)["grpc_over_inprocess"] < 1.0
    assert "| `health_p99_ms` |" in serve.report.table("tiny", found)
    assert json.loads(json.dumps(serve.report.as_json(found)))["rounds"]


def test_scores_of_other_calls_are_not_taken_for_the_same(
    serve: Any,  # noqa: ANN401
    tiny_bundle: Path,
) -> None:
    """The same items for another user differ by far more than what is tolerated."""
    settings = Settings(bundle=tiny_bundle, dtype="bfloat16", prefix_cache_mib=0)
    first, second, *_ = serve.bundle.calls_of(tiny_bundle)
    swapped = serve.load.Call(second.user, first.items)
    own, other = (serve.inprocess.scores(settings, (call,), 1) for call in (first, swapped))
    assert serve.study.checked(own, own) == 0.0
    with pytest.raises(serve.study.WrongScoresError, match="nothing was timed"):
        serve.study.checked(own, other)
    with pytest.raises(serve.study.WrongScoresError, match="different items"):
        serve.study.checked(own, [{**own[0], "another": 0.0}])


def test_ratios_of_rounds_worked_out_by_hand(serve: Any) -> None:  # noqa: ANN401
    def phase(num: int, cpu_s: float, latency_s: float) -> Any:  # noqa: ANN401
        return serve.study.Phase([latency_s] * num, cpu_s, 1.0)

    def one(grpc_cpu_s: float, added_ms: list[float], check_s: float) -> Any:  # noqa: ANN401
        phases = {
            "grpc": phase(8, grpc_cpu_s, 0.5),
            "inprocess": phase(10, 2.0, 0.5),  # 5 a second
        }
        return serve.study.Round(phases, added_ms, [check_s] * 100, 0.0)

    rounds = [one(2.0, [2.0, 8.0], 0.001), one(1.6, [3.0], 0.001), one(4.0, [7.0, 1.0], 0.009)]
    found = serve.study.ratios(rounds)  # 4 / 5, 5 / 5 and 2 / 5
    assert found == {"grpc_over_inprocess": 0.8, "grpc_added_p50_ms": 3.0, "health_p99_ms": 9.0}


async def test_callers_wait_for_answers_and_all_that_began_counts(
    serve: Any,  # noqa: ANN401
) -> None:
    running, most = 0, 0
    seen: list[str] = []

    async def work(turn: str) -> None:
        nonlocal running, most
        running += 1
        seen.append(turn)
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    latencies = await serve.load.closed_loop(work, "abc", 4, 0.12)
    assert (most, running) == (4, 0)
    assert len(latencies) == len(seen) >= 8
    assert seen[:4] == ["a", "b", "c", "a"]
    assert min(latencies) >= 0.05
    seen.clear()
    await serve.load.closed_loop(work, "abc", 4, 0.01, 2)
    assert seen == ["c", "a", "b", "c"]


async def test_a_check_that_a_stalled_server_delays_is_timed_from_when_it_was_due(
    serve: Any,  # noqa: ANN401
) -> None:
    num = 0

    async def work() -> None:
        nonlocal num
        num += 1
        if num == 1:
            time.sleep(0.2)  # stalls the loop, on purpose

    latencies = await serve.load.open_loop(work, 50.0, 0.2)
    assert len(latencies) == 10
    assert latencies[1] >= 0.17
    assert sum(one > 0.05 for one in latencies) >= 6


def test_a_worker_tells_what_failed_and_that_it_ended(serve: Any) -> None:  # noqa: ANN401
    with serve.processes.worker() as worker:
        assert worker.run(os.getpid) == worker.pid
        assert serve.processes.cpu_s_of(worker.pid) > 0.0
        with pytest.raises(serve.processes.WorkerError, match="FileNotFoundError"):
            worker.run(os.stat, "no-such-file")
        assert worker.run(os.getpid) == worker.pid
        worker.begin(time.sleep, 60)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(serve.processes.WorkerError, match="ended before"):
            worker.result()
