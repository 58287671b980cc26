"""Zero wrong answers mean something only if a wrong one would have been found."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Never, cast

import grpc
import numpy as np
import pytest
from benchmarks.common.children import child_ids
from benchmarks.common.rank_calls import BenchmarkCall
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.common.rollout_operator import OperatorError, scale_of, with_common_experts
from benchmarks.common.server_process import ResourceUse, ServerProcessError, serving
from benchmarks.common.small_bundle import with_strong_experts
from benchmarks.common.workload import ModelShape
from benchmarks.swap.callers import Callers, CallersEndedError, CallOutcome, calling
from benchmarks.swap.checker import AnswerChecker, Fingerprints, Timeline
from benchmarks.swap.report import figures, tables
from benchmarks.swap.study import SwapPlan, SwapStudy, run_swap_study
from benchmarks.swap.watcher import AnswerWatcher, SwapPhase

from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

FIRST = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]  # two calls of three items
SECOND = [[0.5, 1.4, 2.3], [3.5, 4.4, 5.3]]


@pytest.fixture
def checker() -> AnswerChecker:
    """Of two revisions: 1 is active until 10, 2 from then to 20, and 1 again."""
    fingerprints = Fingerprints(1, np.array(FIRST))
    assert fingerprints.add(2, np.array(SECOND))
    timeline = Timeline(1)
    timeline.switched(2, 10.0, 10.2)
    timeline.switched(1, 20.0, 20.2)
    return AnswerChecker(timeline, fingerprints)


def test_swaps_of_a_small_bundle_end_to_end(bundle_folder: Path, tmp_path: Path) -> None:
    shape = ModelShape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    bundle = with_strong_experts(bundle_folder, tmp_path, shape)
    resource_tracker.ensure_running()  # a process that multiprocessing keeps
    before = child_ids()
    plan = SwapPlan(6, in_flight=4, calls=4, items=4, answers=8)
    found = run_swap_study(bundle, tmp_path, plan)
    assert child_ids() == before
    checker = found.checker
    assert set(checker.counts.values()) == {0}, checker.examples
    assert checker.num_answers >= 9 * 8
    assert checker.largest_noise <= 1e-4
    assert checker.fingerprints.num_compared == 9 * 2 * 4, "6 swaps and 3 before, with 2 others"
    assert checker.fingerprints.smallest_difference >= 1e-3
    assert len(found.swapping.latencies) >= 6 * 8
    assert len(found.calm.latencies) > 0
    assert found.verbs.keys() == {"stage", "shadow", "promote", "roll back", "retire"}
    assert (len(found.verbs["promote"]), len(found.resources)) == (6, 6)
    assert found.num_bundles == 1
    report = json.loads(json.dumps(figures(found)))
    names = ("swaps", "failed", "wrong_version", "mixed", "stale")
    assert [report[name] for name in names] == [6, 0, 0, 0, 0]
    assert report["p99_ratio"] > 0.0
    assert math.isfinite(report["rss_growth_mib"])
    result = BenchmarkResult(
        room="swap", facts=RunFacts.now(), dtype="float32", settings={}, figures=report
    )
    assert "| failed, wrong version, stale, mixed | 0, 0, 0, 0 | all 0 |" in tables(result)


@pytest.mark.parametrize(
    ("revision", "sent", "received", "scores", "faults"),
    [
        (1, 9.0, 9.5, FIRST[0], ()),
        (1, 9.0, 9.5, [each + 5e-5 for each in FIRST[0]], ()),
        (1, 10.1, 10.5, FIRST[0], ()),  # the promotion was not yet acknowledged
        (2, 9.5, 10.1, SECOND[0], ()),  # nor known to have begun
        (2, 9.5, 9.9, SECOND[0], ("wrong_version",)),
        (1, 10.3, 10.6, FIRST[0], ("wrong_version", "stale")),
        (2, 15.0, 15.2, SECOND[0], ()),
        (2, 15.0, 15.2, FIRST[0], ("stale",)),
        (2, 15.0, 15.2, [FIRST[0][0], *SECOND[0][1:]], ("mixed",)),
        (2, 15.0, 15.2, [each + 0.01 for each in SECOND[0]], ("mixed",)),
        (2, 15.0, 15.2, SECOND[1], ("mixed",)),  # of another call
        (2, 20.1, 20.4, SECOND[0], ()),
        (2, 20.3, 20.4, SECOND[0], ("wrong_version", "stale")),
        (1, 20.3, 20.4, FIRST[0], ()),
        (1, 20.3, 20.4, SECOND[0], ("stale",)),
        (1, 10.3, 20.1, FIRST[0], ()),  # a call so long that both were active
        (3, 15.0, 15.2, FIRST[0], ("wrong_version", "stale")),  # an unknown revision
    ],
)
def test_every_synthetic_fault_is_found(
    revision: int,
    sent: float,
    received: float,
    scores: list[float],
    faults: tuple[str, ...],
    checker: AnswerChecker,
) -> None:
    answer = CallOutcome(0, sent, received, revision, tuple(scores))
    assert checker.check(answer) == faults
    assert {name for name, num in checker.counts.items() if num} == set(faults)
    assert bool(checker.examples) == bool(faults)


def test_a_call_that_failed_is_nothing_else(checker: AnswerChecker) -> None:
    answer = CallOutcome(0, 15.0, 15.2, failure="UNAVAILABLE: gone")
    assert checker.check(answer) == ("failed",)
    assert "UNAVAILABLE" in checker.examples[0]


def test_revisions_with_similar_scores_are_refused() -> None:
    fingerprints = Fingerprints(1, np.array(FIRST))
    second = np.array(FIRST)
    second[:, 0] += 0.5
    assert not fingerprints.add(2, second), "one item alone cannot show a mixed answer"
    second[0, 1] += 0.5
    assert not fingerprints.add(2, second), "nor can a single call"
    second[1, 2] += 0.002
    assert fingerprints.add(2, second)
    assert fingerprints.smallest_difference == pytest.approx(0.002)
    assert not fingerprints.add(3, second + 5e-4), "as the last one"
    assert not fingerprints.add(3, np.array(FIRST) + 5e-4), "as the first one"
    for number in range(3, 200):
        assert fingerprints.add(number, np.array(FIRST) + number)
    assert fingerprints.difference(1, 0, FIRST[0]) == 0.0
    assert fingerprints.difference(100, 0, FIRST[0]) == math.inf, "only the latest are kept"


def test_a_server_that_mixes_revisions_is_detected(checker: AnswerChecker) -> None:
    """A real load on a server that names revision 2, and gives 1 correct answer in 4."""
    calls = [BenchmarkCall(f"user-{number}", ("a", "b", "c")) for number in range(2)]
    now = time.monotonic()
    checker.timeline.switched(2, now, now)
    with _faking() as address, calling(address, calls, 2) as load:
        for _ in range(100):
            for answer in load.take(0.5):
                checker.check(answer)
            if checker.num_answers >= 16:
                break
    assert all(checker.counts[fault] > 0 for fault in ("failed", "stale", "mixed"))
    found = sum(checker.counts.values())
    assert 0 < checker.num_answers - found < found


class _Faker(ranking_pb2_grpc.RankingServiceServicer):
    """Answers correctly, then by another revision, by two, and then not at all."""

    def __init__(self) -> None:
        self._num = 0

    def Rank(
        self, request: ranking_pb2.RankRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.RankResponse:
        self._num += 1
        call = int(request.user_id.removeprefix("user-"))
        mixed = [FIRST[call][0], *SECOND[call][1:]]
        rows: tuple[list[float], ...] = (SECOND[call], FIRST[call], mixed, [])
        row = rows[self._num % 4]
        if not row:
            context.abort(grpc.StatusCode.INTERNAL, "synthetic")
        items = [
            ranking_pb2.RankedItem(item_id=item.item_id, score=score, scored=True)
            for item, score in zip(request.candidates, row, strict=True)
        ]
        revision = ranking_pb2.Revision(number=2)
        return ranking_pb2.RankResponse(revision=revision, items=reversed(items))

    def Explain(self, request: object, context: object) -> Never:
        raise NotImplementedError


@contextmanager
def _faking() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    faker = _Faker()  # type: ignore[abstract]  # no other method is called
    ranking_pb2_grpc.add_RankingServiceServicer_to_server(faker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_callers_that_end_too_early_are_noticed() -> None:
    resource_tracker.ensure_running()
    before = child_ids()
    calls = [BenchmarkCall("user-0", ("a", "b", "c"))]
    with _faking() as address, calling(address, calls, 1) as load:
        assert load.take(30.0)
        [pid] = child_ids() - before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(CallersEndedError):
            _take_on(load)
    assert child_ids() == before


def _take_on(load: Callers) -> None:
    for _ in range(100):
        load.take(1.0)


def test_an_incomplete_answer_has_no_scores() -> None:
    call = BenchmarkCall("user-0", ("a", "b"))

    def answer(*items: tuple[str, bool]) -> ranking_pb2.RankResponse:
        ranked = [ranking_pb2.RankedItem(item_id=i, score=2.0, scored=s) for i, s in items]
        return ranking_pb2.RankResponse(items=ranked)

    assert call.scores(answer(("b", True), ("a", True))) == (2.0, 2.0)
    assert call.scores(answer(("b", True), ("a", False))) == ()
    assert call.scores(answer(("a", True))) == ()
    assert call.scores(answer(("b", True), ("a", True), ("c", True))) == ()
    assert call.scores(answer(("b", True), ("b", True))) == ()


def test_an_expert_never_comes_twice() -> None:
    scales = [scale_of(turn) for turn in range(100_000)]
    assert len({np.float32(each) for each in scales}) > 99_000
    assert min(scales) >= 1.5
    assert max(scales) <= 3.0, "ten times the usual is refused"
    recent = np.array(scales[:1000])
    for lag in range(1, 9):
        assert np.abs(recent[lag:] - recent[:-lag]).min() > 0.05


def test_calls_are_of_users_who_have_experts_in_common() -> None:
    weights = [
        {"a": 0.9, "b": 0.1},
        {"c": 1.0},
        {"a": 0.5, "b": 0.3, "c": 0.2},
        {"a": 0.98, "b": 0.02},
        {"a": 0.4, "b": 0.4, "c": 0.2},
    ]
    assert with_common_experts(weights, 2) == ((0, 2), ("a", "b"))
    assert with_common_experts(weights, 4) == ((0, 2, 3, 4), ("a",))
    with pytest.raises(OperatorError, match="fewer than 5 users"):
        with_common_experts(weights, 5)


def test_a_phase_times_what_lies_within_it(checker: AnswerChecker) -> None:
    now = time.monotonic()
    checker.timeline.switched(1, now, now)

    def answer(sent: float, received: float, failure: str = "") -> CallOutcome:
        return CallOutcome(0, sent, received, 1, tuple(FIRST[0]), failure)

    waiting: list[CallOutcome] = [answer(now, now + 0.001)]
    load = cast("Callers", SimpleNamespace(take=lambda _: [waiting.pop(0)] if waiting else []))
    watcher, phase = AnswerWatcher(load, checker), SwapPhase()
    with watcher.during(phase):
        begun = time.monotonic()
        waiting.append(answer(begun - 1.0, begun + 0.25))  # sent before
        watcher.take()
        waiting.append(answer(begun + 0.25, begun + 0.75))
        watcher.take()
        waiting.append(answer(begun + 0.5, begun + 0.875, failure="gone"))
        watcher.await_answers(1, 3)
    assert list(phase.latencies) == [0.5]
    assert phase.longest_gap_s == pytest.approx(0.5)
    assert phase.seconds > 0.0
    assert checker.counts["failed"] == 1
    waiting.append(answer(begun + 1.0, begun + 9.0))  # of no phase
    watcher.take()
    assert list(phase.latencies) == [0.5]


def test_figures_worked_out_by_hand(checker: AnswerChecker) -> None:
    rss_mib = [*[100.0] * 9, 900.0, *range(200, 280), *[104.0] * 10]
    resources = [ResourceUse(each, 20 + n % 2, 9) for n, each in enumerate(rss_mib)]
    swapping = SwapPhase(array("d", [0.1] * 90 + [0.5] * 10), 2.0, 0.25)
    calm = SwapPhase(array("d", [0.1] * 90 + [0.4] * 10), 2.0, 0.125)
    plan = SwapPlan(100)
    verbs = {"stage": [0.25] * 100}
    study = SwapStudy(plan, ("a",), checker, swapping, calm, verbs, resources, 1)
    found = figures(study)
    assert found["p99_ratio"] == 1.25
    assert (found["rss_growth_mib"], found["rss_growth_bound_mib"]) == (4.0, 10.0)
    assert (found["fds"], found["threads"]) == ((20, 21), (9, 9))
    assert found["swapping"]["gap_ms"] == 250.0
    assert found["verbs"]["stage"] == {"p50_ms": 250.0, "p99_ms": 250.0}


def test_rounds_come_to_all_swaps() -> None:
    plans = {num: SwapPlan(num) for num in (1, 6, 100, 1003, 100_000)}
    assert all(sum(plan.rounds) == num for num, plan in plans.items())
    assert plans[100].rounds == [10] * 10
    assert plans[1003].rounds[-2:] == [10, 3]
    assert [plan.warm_up for plan in plans.values()] == [1, 3, 50, 50, 50]
    assert dataclasses.replace(plans[1], swaps=20).rounds == [2] * 10


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    before = child_ids()
    with (
        pytest.raises(ServerProcessError, match=r"did not start: .*manifest"),
        serving(tmp_path, tmp_path / "state", threads=1, cache_mib=1),
    ):
        raise AssertionError
    assert child_ids() == before
