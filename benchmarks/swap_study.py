"""Rounds of swaps and rounds without, in turns, under callers who never pause."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from measure import progress
from serve_bundle import calls_of
from serve_load import Call
from swap_check import Checker, Fingerprints, Timeline
from swap_load import loading
from swap_operator import Experts, Operator, OperatorError, operating, shared
from swap_server import Holding, Server, serving
from swap_watch import Phase, Watcher

ASKED_USERS = 64  # of whom the calls are chosen
WARM_UP = 50
PER_ROUND = 10  # so few that both kinds of rounds see the same machine
TRIES = 10  # of another scale
TELL_S = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run.

    ``calls``, ``items``: how many different ones, whose scores are a revision's
    fingerprint. ``answers``: by each new revision, at least, before it is rolled back.
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
class Study:
    """What was found. ``verbs``: seconds of each. ``holdings``: of the server, swap by swap."""

    plan: Plan
    experts: tuple[str, ...]
    checker: Checker
    swapping: Phase
    calm: Phase
    verbs: Mapping[str, Sequence[float]]
    holdings: Sequence[Holding]
    num_bundles: int


@dataclass(slots=True)
class Swapper:
    """Swaps of one server, each checked. ``base``: the revision that is always returned to."""

    server: Server
    operator: Operator
    experts: Experts
    watcher: Watcher
    base: int
    plan: Plan
    num_written: int = 0
    holdings: list[Holding] = field(default_factory=list[Holding])

    def swap(self) -> None:
        """Another expert comes in, answers, and goes again."""
        new = self._staged()
        with self._switching(new):
            self.operator.promote(new, self.base)
        self.watcher.await_answers(new, self.plan.answers)
        with self._switching(self.base):
            self.operator.roll_back(new)
        self.operator.retire(new, self.base)
        self.watcher.take()
        self.holdings.append(self.server.holding())

    def rest(self, seconds: float) -> None:
        """As long as a swap, with as many calls for a fingerprint, and no change."""
        began = time.monotonic()
        self.operator.rank(self.base)
        self.watcher.watch(seconds - (time.monotonic() - began))

    def _staged(self) -> int:
        """A new revision that can be told from others. Raises OperatorError."""
        for _ in range(TRIES):
            name, folder = self.experts.write(self.num_written)
            self.num_written += 1
            new = self.operator.stage(name, folder, self.base)
            if self.watcher.checker.fingerprints.add(new, self.operator.fingerprint(new)):
                return new
            self.operator.retire(new, self.base)
        raise OperatorError("experts of this bundle hardly change what is scored")

    @contextmanager
    def _switching(self, to: int) -> Iterator[None]:
        asked = time.monotonic()
        yield
        self.watcher.checker.timeline.switched(to, asked, time.monotonic())


def study(bundle: Path, folder: Path, plan: Plan) -> Study:
    """Runs all of it. Raises ServerError, OperatorError or LoadEndedError."""
    state = folder / "state"
    with serving(bundle, state, threads=plan.threads, cache_mib=plan.cache_mib) as server:
        progress("choosing calls whose scores tell revisions apart")
        calls, names = _chosen(server, calls_of(bundle), plan)
        with (
            operating(server.ranking, server.rollout, calls) as operator,
            loading(server.ranking, calls, plan.in_flight) as load,
        ):
            base = operator.active()
            prints = Fingerprints(base, operator.fingerprint(base))
            watcher = Watcher(load, Checker(Timeline(base), prints))
            experts = Experts(bundle, names, folder / "expert")
            swapper = Swapper(server, operator, experts, watcher, base, plan)
            swapping, calm = _rounds(swapper)
            watcher.take()
            num_bundles, verbs = server.num_bundles(), operator.seconds
    found = (swapping, calm, verbs, swapper.holdings, num_bundles)
    return Study(plan, names, watcher.checker, *found)


def _chosen(
    server: Server, calls: Sequence[Call], plan: Plan
) -> tuple[tuple[Call, ...], tuple[str, ...]]:
    """Calls, and experts that have weight in each of them."""
    cut = [Call(call.user, call.items[: plan.items]) for call in calls[:ASKED_USERS]]
    with operating(server.ranking, server.rollout, cut) as operator:
        answers = operator.rank(operator.active())
    weights = [{each.expert: each.weight for each in answer.routing.weights} for answer in answers]
    users, names = shared(weights, plan.calls)
    return tuple(cut[user] for user in users), names


def _rounds(swapper: Swapper) -> tuple[Phase, Phase]:
    plan, swapping, calm = swapper.plan, Phase(), Phase()
    progress(f"warm-up of {plan.warm_up} swaps")
    for _ in range(plan.warm_up):
        swapper.swap()
    swapper.operator.seconds.clear()
    swapper.holdings.clear()
    told = 0.0
    for num_swaps in plan.rounds:
        _turn(swapper, num_swaps, swapping, calm)
        if time.monotonic() - told > TELL_S or len(swapper.holdings) == plan.swaps:
            told = time.monotonic()
            _tell(swapper)
    return swapping, calm


def _turn(swapper: Swapper, num_swaps: int, swapping: Phase, calm: Phase) -> None:
    """A round of swaps, and one as long without."""
    before = swapping.seconds
    with swapper.watcher.during(swapping):
        for _ in range(num_swaps):
            swapper.swap()
    each_s = (swapping.seconds - before) / num_swaps
    with swapper.watcher.during(calm):
        for _ in range(num_swaps):
            swapper.rest(each_s)


def _tell(swapper: Swapper) -> None:
    checker, done = swapper.watcher.checker, len(swapper.holdings)
    progress(
        f"{done} of {swapper.plan.swaps} swaps: {checker.num_answers} answers, "
        f"{sum(checker.counts.values())} faults, {swapper.holdings[-1].rss_mib:.0f} MiB"
    )
