"""Zero wrong answers mean something only if a wrong one would have been found."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import signal
import sys
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

FOLDER = str(Path(__file__).parents[2] / "benchmarks")
NAMES = ("bundle", "check", "load", "operator", "report", "server", "study", "watch")
FIRST = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]  # two calls of three items
SECOND = [[0.5, 1.4, 2.3], [3.5, 4.4, 5.3]]


@pytest.fixture(scope="module")
def swap() -> Iterator[Any]:
    """The benchmark's modules; its folder is on the path as long as they are used."""
    sys.path.append(FOLDER)  # processes that are begun find the modules there too
    try:
        yield SimpleNamespace(
            **{name: importlib.import_module(f"swap_{name}") for name in NAMES},
            processes=importlib.import_module("serve_processes"),
            Call=importlib.import_module("serve_load").Call,
            Shape=importlib.import_module("workload").Shape,
        )
    finally:
        sys.path.remove(FOLDER)


@pytest.fixture
def checker(swap: Any) -> Any:  # noqa: ANN401
    """Of two revisions: 1 is active until 10, 2 from then to 20, and 1 again."""
    fingerprints = swap.check.Fingerprints(1, np.array(FIRST))
    assert fingerprints.add(2, np.array(SECOND))
    timeline = swap.check.Timeline(1)
    timeline.switched(2, 10.0, 10.2)
    timeline.switched(1, 20.0, 20.2)
    return swap.check.Checker(timeline, fingerprints)


def test_swaps_of_a_small_bundle_end_to_end(
    swap: Any,  # noqa: ANN401
    bundle_folder: Path,
    tmp_path: Path,
) -> None:
    shape = swap.Shape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    bundle = swap.bundle.swappable(bundle_folder, tmp_path, shape)
    resource_tracker.ensure_running()  # a process that multiprocessing keeps
    before = swap.processes.children()
    plan = swap.study.Plan(6, in_flight=4, calls=4, items=4, answers=8)
    found = swap.study.study(bundle, tmp_path, plan)
    assert swap.processes.children() == before
    checker = found.checker
    assert set(checker.counts.values()) == {0}, checker.examples
    assert checker.num_answers >= 9 * 8
    assert checker.largest_noise <= 1e-4
    assert checker.fingerprints.num_compared == 9 * 2 * 4, "6 swaps and 3 before, with 2 others"
    assert checker.fingerprints.smallest_difference >= 1e-3
    assert len(found.swapping.latencies) >= 6 * 8
    assert len(found.calm.latencies) > 0
    assert found.verbs.keys() == {"stage", "promote", "roll back", "retire"}
    assert (len(found.verbs["promote"]), len(found.holdings)) == (6, 6)
    assert found.num_bundles == 1
    report = json.loads(json.dumps(swap.report.figures(found)))
    names = ("swaps", "failed", "wrong_version", "mixed", "stale")
    assert [report[name] for name in names] == [6, 0, 0, 0, 0]
    assert report["p99_ratio"] > 0.0
    assert math.isfinite(report["rss_growth_mib"])
    assert "| wrong version | 0 | 0 |" in swap.report.table("tiny", found)


@pytest.mark.parametrize(
    ("revision", "sent", "received", "scores", "faults"),
    [
        (1, 9.0, 9.5, FIRST[0], ()),
        (1, 9.0, 9.5, [each + 5e-5 for each in FIRST[0]], ()),
        (1, 10.1, 10.5, FIRST[0], ()),  # the promotion was not acknowledged yet
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
        (3, 15.0, 15.2, FIRST[0], ("wrong_version", "stale")),  # nobody knows that one
    ],
)
def test_every_synthetic_fault_is_found(
    revision: int,
    sent: float,
    received: float,
    scores: list[float],
    faults: tuple[str, ...],
    swap: Any,  # noqa: ANN401
    checker: Any,  # noqa: ANN401
) -> None:
    answer = swap.load.Answer(0, sent, received, revision, tuple(scores))
    assert checker.check(answer) == faults
    assert {name for name, num in checker.counts.items() if num} == set(faults)
    assert bool(checker.examples) == bool(faults)


def test_a_call_that_failed_is_nothing_else(swap: Any, checker: Any) -> None:  # noqa: ANN401
    answer = swap.load.Answer(0, 15.0, 15.2, failure="UNAVAILABLE: gone")
    assert checker.check(answer) == ("failed",)
    assert "UNAVAILABLE" in checker.examples[0]


def test_revisions_that_score_alike_are_no_proof(swap: Any) -> None:  # noqa: ANN401
    fingerprints = swap.check.Fingerprints(1, np.array(FIRST))
    second = np.array(FIRST)
    second[:, 0] += 0.5
    assert not fingerprints.add(2, second), "a single item tells of no bank"
    second[0, 1] += 0.5
    assert not fingerprints.add(2, second), "nor does a single call"
    second[1, 2] += 0.002
    assert fingerprints.add(2, second)
    assert fingerprints.smallest_difference == pytest.approx(0.002)
    assert not fingerprints.add(3, second + 5e-4), "as the last one"
    assert not fingerprints.add(3, np.array(FIRST) + 5e-4), "as the first one"
    for number in range(3, 200):
        assert fingerprints.add(number, np.array(FIRST) + number)
    assert fingerprints.difference(1, 0, FIRST[0]) == 0.0
    assert fingerprints.difference(100, 0, FIRST[0]) == math.inf, "not kept for ever"


def test_a_server_that_mixes_revisions_is_found_out(swap: Any, checker: Any) -> None:  # noqa: ANN401
    """A real load on a server that names revision 2, of which 1 answer in 4 is sound."""
    calls = [swap.Call(f"user-{number}", ("a", "b", "c")) for number in range(2)]
    now = time.monotonic()
    checker.timeline.switched(2, now, now)
    with _faking() as address, swap.load.loading(address, calls, 2) as load:
        for _ in range(100):
            for answer in load.take(0.5):
                checker.check(answer)
            if checker.num_answers >= 16:
                break
    assert all(checker.counts[fault] > 0 for fault in ("failed", "stale", "mixed"))
    found = sum(checker.counts.values())
    assert 0 < checker.num_answers - found < found


class _Faker(ranking_pb2_grpc.RankingServiceServicer):
    """Answers rightly, then by another revision, by two, and then not at all."""

    def __init__(self) -> None:
        self._num = 0

    def Explain(
        self, request: ranking_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> Iterator[ranking_pb2.ExplainResponse]:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no test calls this")

    def Rank(
        self, request: ranking_pb2.RankRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.RankResponse:
        self._num += 1
        call = int(request.user_id.removeprefix("user-"))
        rows: tuple[list[float], ...] = (
            SECOND[call],
            FIRST[call],
            [FIRST[call][0], *SECOND[call][1:]],
            [],
        )
        row = rows[self._num % 4]
        if not row:
            context.abort(grpc.StatusCode.INTERNAL, "synthetic")
        items = [
            ranking_pb2.RankedItem(item_id=item.item_id, score=score, scored=True)
            for item, score in zip(request.candidates, row, strict=True)
        ]
        revision = ranking_pb2.Revision(number=2)
        return ranking_pb2.RankResponse(revision=revision, items=reversed(items))


@contextmanager
def _faking() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    ranking_pb2_grpc.add_RankingServiceServicer_to_server(_Faker(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_callers_that_are_gone_are_missed(swap: Any) -> None:  # noqa: ANN401
    resource_tracker.ensure_running()
    before = swap.processes.children()
    calls = [swap.Call("user-0", ("a", "b", "c"))]
    with _faking() as address, swap.load.loading(address, calls, 1) as load:
        assert load.take(30.0)
        [pid] = swap.processes.children() - before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(swap.load.LoadEndedError):
            _take_on(load)
    assert swap.processes.children() == before


def _take_on(load: Any) -> None:  # noqa: ANN401
    for _ in range(100):
        load.take(1.0)


def test_an_answer_without_every_score_has_none(swap: Any) -> None:  # noqa: ANN401
    call = swap.Call("user-0", ("a", "b"))

    def answer(*items: tuple[str, bool]) -> ranking_pb2.RankResponse:
        ranked = [ranking_pb2.RankedItem(item_id=i, score=2.0, scored=s) for i, s in items]
        return ranking_pb2.RankResponse(items=ranked)

    assert swap.load.scores_of(call, answer(("b", True), ("a", True))) == (2.0, 2.0)
    assert swap.load.scores_of(call, answer(("b", True), ("a", False))) == ()
    assert swap.load.scores_of(call, answer(("a", True))) == ()
    assert swap.load.scores_of(call, answer(("b", True), ("a", True), ("c", True))) == ()
    assert swap.load.scores_of(call, answer(("b", True), ("b", True))) == ()


def test_an_expert_never_comes_twice(swap: Any) -> None:  # noqa: ANN401
    scales = [swap.operator.scale_of(turn) for turn in range(100_000)]
    assert len({np.float32(each) for each in scales}) > 99_000
    assert min(scales) >= 1.5
    assert max(scales) <= 3.0, "ten times the usual is refused"
    recent = np.array(scales[:1000])
    for lag in range(1, 9):
        assert np.abs(recent[lag:] - recent[:-lag]).min() > 0.05


def test_calls_are_of_users_who_have_experts_in_common(swap: Any) -> None:  # noqa: ANN401
    weights = [
        {"a": 0.9, "b": 0.1},
        {"c": 1.0},
        {"a": 0.5, "b": 0.3, "c": 0.2},
        {"a": 0.98, "b": 0.02},
        {"a": 0.4, "b": 0.4, "c": 0.2},
    ]
    assert swap.operator.shared(weights, 2) == ((0, 2), ("a", "b"))
    assert swap.operator.shared(weights, 4) == ((0, 2, 3, 4), ("a",))
    with pytest.raises(swap.operator.OperatorError, match="no 5 users"):
        swap.operator.shared(weights, 5)


def test_a_phase_times_what_lies_within_it(swap: Any, checker: Any) -> None:  # noqa: ANN401
    now = time.monotonic()
    checker.timeline.switched(1, now, now)

    def answer(sent: float, received: float, **values: object) -> Any:  # noqa: ANN401
        given = {"revision": 1, "scores": tuple(FIRST[0]), **values}
        return swap.load.Answer(0, sent, received, **given)

    waiting: list[Any] = [answer(now, now + 0.001)]
    load = SimpleNamespace(take=lambda _: [waiting.pop(0)] if waiting else [])
    watcher, phase = swap.watch.Watcher(load, checker), swap.watch.Phase()
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


def test_figures_worked_out_by_hand(swap: Any, checker: Any) -> None:  # noqa: ANN401
    rss_mib = [*[100.0] * 9, 900.0, *range(200, 280), *[104.0] * 10]
    holdings = [swap.server.Holding(each, 20 + n % 2, 9) for n, each in enumerate(rss_mib)]
    swapping = swap.watch.Phase(array("d", [0.1] * 90 + [0.5] * 10), 2.0, 0.25)
    calm = swap.watch.Phase(array("d", [0.1] * 90 + [0.4] * 10), 2.0, 0.125)
    plan = swap.study.Plan(100)
    verbs = {"stage": [0.25] * 100}
    study = swap.study.Study(plan, ("a",), checker, swapping, calm, verbs, holdings, 1)
    found = swap.report.figures(study)
    assert found["p99_ratio"] == 1.25
    assert (found["rss_growth_mib"], found["rss_growth_bound_mib"]) == (4.0, 10.0)
    assert (found["fds"], found["threads"]) == ((20, 21), (9, 9))
    assert found["swapping"]["gap_ms"] == 250.0
    assert found["verbs"]["stage"] == {"p50_ms": 250.0, "p99_ms": 250.0}


def test_rounds_come_to_all_swaps(swap: Any) -> None:  # noqa: ANN401
    plans = {num: swap.study.Plan(num) for num in (1, 6, 100, 1003, 100_000)}
    assert all(sum(plan.rounds) == num for num, plan in plans.items())
    assert plans[100].rounds == [10] * 10
    assert plans[1003].rounds[-2:] == [10, 3]
    assert [plan.warm_up for plan in plans.values()] == [1, 3, 50, 50, 50]
    assert dataclasses.replace(plans[1], swaps=20).rounds == [2] * 10


def test_a_server_that_does_not_start_says_why(
    swap: Any,  # noqa: ANN401
    tmp_path: Path,
) -> None:
    before = swap.processes.children()
    with (
        pytest.raises(swap.server.ServerError, match=r"did not start: .*manifest"),
        swap.server.serving(tmp_path, tmp_path / "state", threads=1, cache_mib=1),
    ):
        raise AssertionError
    assert swap.processes.children() == before
