"""Rounds of swaps in turns with rounds without, under callers that never pause."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common.bundles import calls_of
from benchmarks.common.rank_calls import BenchmarkCall
from benchmarks.common.rollout_operator import (
    ExpertWriter,
    OperatorError,
    RolloutOperator,
    operating,
    with_common_experts,
)
from benchmarks.common.server_process import ResourceUse, ServerProcess, serving
from benchmarks.common.timing import progress
from benchmarks.swap.callers import calling
from benchmarks.swap.checker import AnswerChecker, Fingerprints, Timeline
from benchmarks.swap.watcher import AnswerWatcher, SwapPhase

ASKED_USERS = 64  # from whom the calls are chosen
WARM_UP = 50
PER_ROUND = 10  # so few that both kinds of rounds meet the same load of the machine
TRIES = 10  # each with another scale
REPORT_S = 10.0


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """How much is run.

    ``calls``, ``items``: size of a revision's fingerprint. ``answers``: how many each new revision
    gives, at least, before it is rolled back.
    """

    swaps: int
    in_flight: int = 16
    threads: int = 1
    cache_mib: int = 16
    calls: int = 8
    items: int = 8
    answers: int = 32

    @property
    def warm_up(self) -> int:
        """Swaps before the first that counts; their answers are checked too."""
        return min(WARM_UP, math.ceil(self.swaps / 2))

    @property
    def rounds(self) -> list[int]:
        """Swaps of each round."""
        per_round = max(1, min(PER_ROUND, self.swaps // 10))
        num_full, rest = divmod(self.swaps, per_round)
        return [per_round] * num_full + ([rest] if rest else [])


@dataclass(frozen=True, slots=True)
class SwapStudy:
    """Findings. ``verbs``: seconds of each. ``resources``: of the server, swap by swap."""

    plan: SwapPlan
    experts: tuple[str, ...]
    checker: AnswerChecker
    swapping: SwapPhase
    calm: SwapPhase
    verbs: Mapping[str, Sequence[float]]
    resources: Sequence[ResourceUse]
    num_bundles: int


@dataclass(slots=True)
class Swapper:
    """Swaps experts of one server. ``base``: the revision that it always returns to."""

    server: ServerProcess
    operator: RolloutOperator
    experts: ExpertWriter
    watcher: AnswerWatcher
    base: int
    plan: SwapPlan
    num_written: int = 0
    resources: list[ResourceUse] = field(default_factory=list[ResourceUse])

    def swap(self) -> None:
        """Stages another expert, promotes it, lets it answer, rolls back and retires it."""
        new = self._staged()
        with self._switching(new):
            self.operator.promote(new, self.base)
        self.watcher.await_answers(new, self.plan.answers)
        with self._switching(self.base):
            self.operator.roll_back(new, new)
        self.operator.retire(new, self.base)
        self.watcher.take()
        self.resources.append(self.server.resource_use())

    def rest(self, seconds: float) -> None:
        """Takes as long as a swap, with as many calls for a fingerprint, and changes nothing."""
        began = time.monotonic()
        self.operator.rank(self.base)
        self.watcher.watch(seconds - (time.monotonic() - began))

    def _staged(self) -> int:
        """Stages a revision whose scores differ from the others'. Raises OperatorError."""
        for _ in range(TRIES):
            name, folder = self.experts.write(self.num_written)
            self.num_written += 1
            new = self.operator.stage(name, folder, self.base)
            self.operator.shadow(new, self.base)
            if self.watcher.checker.fingerprints.add(new, self.operator.fingerprint(new)):
                return new
            self.operator.roll_back(new, self.base)
            self.operator.retire(new, self.base)
        raise OperatorError(
            "the experts of this bundle hardly change its scores, so answers cannot be told apart: "
            "serve a bundle with stronger experts"
        )

    @contextmanager
    def _switching(self, to: int) -> Iterator[None]:
        asked = time.monotonic()
        yield
        self.watcher.checker.timeline.switched(to, asked, time.monotonic())


def run_swap_study(bundle: Path, folder: Path, plan: SwapPlan) -> SwapStudy:
    """Raises ServerProcessError, OperatorError or CallersEndedError."""
    state = folder / "state"
    with serving(bundle, state, threads=plan.threads, cache_mib=plan.cache_mib) as server:
        progress("choosing calls whose scores tell revisions apart")
        calls, names = _chosen(server, calls_of(bundle), plan)
        with (
            operating(server.ranking, server.rollout, calls) as operator,
            calling(server.ranking, calls, plan.in_flight) as load,
        ):
            base = operator.active()
            prints = Fingerprints(base, operator.fingerprint(base))
            watcher = AnswerWatcher(load, AnswerChecker(Timeline(base), prints))
            experts = ExpertWriter(bundle, names, folder / "expert")
            swapper = Swapper(server, operator, experts, watcher, base, plan)
            swapping, calm = _rounds(swapper)
            watcher.take()
            num_bundles, verbs = server.num_bundles(), operator.seconds
    found = (swapping, calm, verbs, swapper.resources, num_bundles)
    return SwapStudy(plan, names, watcher.checker, *found)


def _chosen(
    server: ServerProcess, calls: Sequence[BenchmarkCall], plan: SwapPlan
) -> tuple[tuple[BenchmarkCall, ...], tuple[str, ...]]:
    """Calls, and the experts that have weight in all of them."""
    cut = [BenchmarkCall(call.user, call.items[: plan.items]) for call in calls[:ASKED_USERS]]
    with operating(server.ranking, server.rollout, cut) as operator:
        answers = operator.rank(operator.active())
    weights = [{each.expert: each.weight for each in answer.routing.weights} for answer in answers]
    users, names = with_common_experts(weights, plan.calls)
    return tuple(cut[user] for user in users), names


def _rounds(swapper: Swapper) -> tuple[SwapPhase, SwapPhase]:
    plan, swapping, calm = swapper.plan, SwapPhase(), SwapPhase()
    progress(f"warm-up of {plan.warm_up} swaps")
    for _ in range(plan.warm_up):
        swapper.swap()
    swapper.operator.seconds.clear()
    swapper.resources.clear()
    reported = 0.0
    for num_swaps in plan.rounds:
        _turn(swapper, num_swaps, swapping, calm)
        if time.monotonic() - reported > REPORT_S or len(swapper.resources) == plan.swaps:
            reported = time.monotonic()
            _report(swapper)
    return swapping, calm


def _turn(swapper: Swapper, num_swaps: int, swapping: SwapPhase, calm: SwapPhase) -> None:
    """A round of swaps, and one as long without."""
    before = swapping.seconds
    with swapper.watcher.during(swapping):
        for _ in range(num_swaps):
            swapper.swap()
    each_s = (swapping.seconds - before) / num_swaps
    with swapper.watcher.during(calm):
        for _ in range(num_swaps):
            swapper.rest(each_s)


def _report(swapper: Swapper) -> None:
    checker, done = swapper.watcher.checker, len(swapper.resources)
    progress(
        f"{done} of {swapper.plan.swaps} swaps: {checker.num_answers} answers, "
        f"{sum(checker.counts.values())} faults, {swapper.resources[-1].rss_mib:.0f} MiB"
    )
